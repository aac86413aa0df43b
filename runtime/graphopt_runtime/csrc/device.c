/* device.c: a program that runs compiled models for a host, on the machine (or under the emulator) that they are made for.

   Without arguments it serves one session over standard input and output. With --port it listens, on the loopback interface
   unless --any is given too, and serves every connection in a process of its own, so that a model that crashes ends its
   session alone. A session begins with the word below and the token. Requests are a letter and operands; numbers are 64 bits
   wide and in the order of little-endian machines, bytes come behind their count:

     M  library, weights, threads                       load a model
     R  variant, inputs, sizes of the outputs           run it; answers with the outputs
     T  variant, inputs, sizes of the outputs, repeats  answers with the nanoseconds of all runs together
     K  variant, sizes of inputs and outputs            keep tensors of small numbers for it
     O  variant                                         run it once on those; answers with the nanoseconds
     L  count                                           answers with the seconds, so far, of so many kernels of a profiled library

   Every answer begins with a status: 0, or 1 and a sentence.

   SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "graphopt.h"

enum { WORD_BYTES = 8, MOST_TENSORS = 1024, MOST_KEPT = 64, MOST_TOKEN_BYTES = 256, ALIGNMENT = 64 };

static const char WORD[WORD_BYTES + 1] = "GRAPHOPT";

typedef struct {
    uint64_t variant;
    uint64_t input_count, output_count;
    void *inputs[MOST_TENSORS];
    void *outputs[MOST_TENSORS];
    uint64_t output_bytes[MOST_TENSORS];
} call;

typedef struct {
    int in, out;
    void *weights;
    graphopt_model *model;
    graphopt_model *(*create)(const void *weights, int threads);
    int (*run)(graphopt_model *model, int variant, const void *const *inputs, void *const *outputs);
    double (*time)(graphopt_model *model, int variant, const void *const *inputs, void *const *outputs, int repeats);
    const char *(*error_string)(int error);
    const double *(*layer_times)(void);
    call *kept[MOST_KEPT];
} session;

/* The host is gone, or says what nobody understands: the session is over. */
static void hang_up(void) { _exit(1); }

static void read_all(const session *s, void *to, uint64_t bytes) {
    for (unsigned char *next = to; bytes > 0;) {
        ssize_t got = read(s->in, next, bytes < (1 << 20) ? bytes : 1 << 20);
        if (got <= 0) hang_up();
        next += got;
        bytes -= (uint64_t)got;
    }
}

static void write_all(const session *s, const void *from, uint64_t bytes) {
    for (const unsigned char *next = from; bytes > 0;) {
        ssize_t put = write(s->out, next, bytes);
        if (put <= 0) hang_up();
        next += put;
        bytes -= (uint64_t)put;
    }
}

static uint64_t read_number(const session *s) {
    uint64_t number;
    read_all(s, &number, sizeof number);
    return number;
}

static void write_number(const session *s, uint64_t number) { write_all(s, &number, sizeof number); }

static void *allocate(uint64_t bytes) {
    uint64_t rounded = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    void *memory = rounded > bytes && rounded == (size_t)rounded ? aligned_alloc(ALIGNMENT, (size_t)rounded) : NULL;
    if (memory == NULL) hang_up();
    return memory;
}

static void *read_bytes(const session *s, uint64_t *bytes) {
    *bytes = read_number(s);
    void *memory = allocate(*bytes);
    read_all(s, memory, *bytes);
    return memory;
}

static void answer_error(const session *s, const char *sentence) {
    write_number(s, 1);
    write_number(s, strlen(sentence));
    write_all(s, sentence, strlen(sentence));
}

/* A library in a file that nobody else sees; NULL where it cannot be loaded. */
static void *load_library(const void *code, uint64_t bytes) {
    char path[] = "/tmp/graphopt-device-XXXXXX";
    int file = mkstemp(path);
    if (file < 0) return NULL;
    const session to_file = {.out = file};
    write_all(&to_file, code, bytes);
    close(file);
    void *library = dlopen(path, RTLD_NOW);
    unlink(path);
    return library;
}

/* Puts the address of a function into a pointer to it: ISO C knows no other way from a pointer to data. */
static int find(void *library, const char *name, void *function) {
    void *symbol = dlsym(library, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

static void load(session *s) {
    uint64_t code_bytes, weight_bytes;
    void *code = read_bytes(s, &code_bytes);
    free(s->weights);
    s->weights = read_bytes(s, &weight_bytes);
    int threads = (int)read_number(s);
    void *library = load_library(code, code_bytes);
    free(code);
    if (library == NULL) {
        const char *reason = dlerror();
        answer_error(s, reason != NULL ? reason : "the library could not be written");
        return;
    }
    if (!find(library, "graphopt_create", &s->create) || !find(library, "graphopt_run", &s->run) ||
        !find(library, "graphopt_time", &s->time) || !find(library, "graphopt_error_string", &s->error_string)) {
        answer_error(s, "the library is not a graphopt model");
        return;
    }
    if (!find(library, "graphopt_layer_times", &s->layer_times)) s->layer_times = NULL;
    s->model = s->create(s->weights, threads);
    if (s->model == NULL) {
        answer_error(s, "out of memory");
        return;
    }
    write_number(s, 0);
}

static void read_call(const session *s, call *c) {
    c->variant = read_number(s);
    c->input_count = read_number(s);
    if (c->input_count > MOST_TENSORS) hang_up();
    for (uint64_t i = 0, bytes; i < c->input_count; i++) c->inputs[i] = read_bytes(s, &bytes);
    c->output_count = read_number(s);
    if (c->output_count > MOST_TENSORS) hang_up();
    for (uint64_t i = 0; i < c->output_count; i++) {
        c->output_bytes[i] = read_number(s);
        c->outputs[i] = allocate(c->output_bytes[i]);
    }
}

static void free_call(call *c) {
    for (uint64_t i = 0; i < c->input_count; i++) free(c->inputs[i]);
    for (uint64_t i = 0; i < c->output_count; i++) free(c->outputs[i]);
}

static void run(const session *s, call *c) {
    int status = s->run(s->model, (int)c->variant, (const void *const *)c->inputs, c->outputs);
    if (status != GRAPHOPT_OK) {
        answer_error(s, s->error_string(status));
        return;
    }
    write_number(s, 0);
    for (uint64_t i = 0; i < c->output_count; i++) write_all(s, c->outputs[i], c->output_bytes[i]);
}

static void measure(const session *s, call *c, int repeats) {
    double seconds = s->time(s->model, (int)c->variant, (const void *const *)c->inputs, c->outputs, repeats);
    if (seconds < 0) {
        answer_error(s, s->error_string((int)-seconds));
        return;
    }
    write_number(s, 0);
    write_number(s, (uint64_t)(seconds * 1e9));
}

/* Small numbers: denormal ones would take longer. */
static void *tensor(uint64_t bytes) {
    float *memory = allocate(bytes);
    for (uint64_t i = 0; i < bytes / sizeof *memory; i++) memory[i] = 0.01f;
    return memory;
}

static void keep(session *s) {
    uint64_t variant = read_number(s);
    call *c = calloc(1, sizeof *c);
    if (c == NULL || variant >= MOST_KEPT) hang_up();
    c->variant = variant;
    c->input_count = read_number(s);
    if (c->input_count > MOST_TENSORS) hang_up();
    for (uint64_t i = 0; i < c->input_count; i++) c->inputs[i] = tensor(read_number(s));
    c->output_count = read_number(s);
    if (c->output_count > MOST_TENSORS) hang_up();
    for (uint64_t i = 0; i < c->output_count; i++) c->outputs[i] = tensor(read_number(s));
    s->kept[variant] = c;
    write_number(s, 0);
}

static void run_kept(const session *s) {
    uint64_t variant = read_number(s);
    if (variant >= MOST_KEPT || s->kept[variant] == NULL || s->model == NULL)
        answer_error(s, "nothing is kept for that variant");
    else
        measure(s, s->kept[variant], 1);
}

static void tell_layer_times(const session *s) {
    uint64_t count = read_number(s);
    if (s->layer_times == NULL) {
        answer_error(s, "the library does not measure its kernels");
        return;
    }
    write_number(s, 0);
    write_all(s, s->layer_times(), count * sizeof(double));
}

static void answer_call(const session *s, char request) {
    static call c;
    read_call(s, &c);
    int repeats = request == 'T' ? (int)read_number(s) : 0;
    if (s->model == NULL)
        answer_error(s, "no model is loaded");
    else if (request == 'R')
        run(s, &c);
    else
        measure(s, &c, repeats);
    free_call(&c);
}

static void serve(int in, int out, const char *token) {
    session s = {.in = in, .out = out};
    char word[WORD_BYTES], given[MOST_TOKEN_BYTES + 1] = {0};
    read_all(&s, word, WORD_BYTES);
    uint64_t token_bytes = read_number(&s);
    if (memcmp(word, WORD, WORD_BYTES) != 0 || token_bytes > MOST_TOKEN_BYTES) hang_up();
    read_all(&s, given, token_bytes);
    if (strcmp(given, token) != 0) {
        answer_error(&s, "the token is wrong");
        return;
    }
    write_number(&s, 0);
    for (char request; read(in, &request, 1) == 1;) {
        if (request == 'M')
            load(&s);
        else if (request == 'K')
            keep(&s);
        else if (request == 'O')
            run_kept(&s);
        else if (request == 'L')
            tell_layer_times(&s);
        else if (request == 'R' || request == 'T')
            answer_call(&s, request);
        else
            hang_up();
    }
}

static int listen_on(int port, int everywhere) {
    int server = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(everywhere ? INADDR_ANY : INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(server, (struct sockaddr *)&address, size) != 0 || listen(server, 8) != 0) {
        perror("graphopt-device");
        exit(2);
    }
    getsockname(server, (struct sockaddr *)&address, &size);
    printf("listening on port %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return server;
}

static void serve_connections(int server, const char *token) {
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int connection = accept(server, NULL, NULL), on = 1;
        if (connection < 0) continue;
        if (fork() == 0) {
            close(server);
            setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            serve(connection, connection, token);
            exit(0);
        }
        close(connection);
    }
}

int main(int count, char **arguments) {
    const char *token = getenv("GRAPHOPT_DEVICE_TOKEN");
    int port = -1, everywhere = 0;
    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "--any") == 0)
            everywhere = 1;
        else if (strcmp(arguments[i], "--port") == 0 && i + 1 < count)
            port = atoi(arguments[++i]);
        else {
            fprintf(stderr, "usage: %s [--port PORT [--any]]; the token is in GRAPHOPT_DEVICE_TOKEN\n", arguments[0]);
            return 2;
        }
    }
    if (token == NULL) token = "";
    signal(SIGPIPE, SIG_IGN);
    if (everywhere && *token == '\0') {
        fprintf(stderr, "graphopt-device: --any needs a token in GRAPHOPT_DEVICE_TOKEN\n");
        return 2;
    }
    if (port < 0)
        serve(STDIN_FILENO, STDOUT_FILENO, token);
    else
        serve_connections(listen_on(port, everywhere), token);
    return 0;
}
