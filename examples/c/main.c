/* Classifies a digit twice: by a plain call that works in memory of ours, and through a handle with threads. */
#include <stdio.h>

#include "digits.h"

/* A 3 of 8 x 8 pixels, which are 0 to 16. */
static const char drawing[] =
    "  ####  "
    " #    # "
    "      # "
    "   ###  "
    "      # "
    "      # "
    " #    # "
    "  ####  ";

static int most_probable(const float *probabilities) {
    int best = 0;
    for (int digit = 1; digit < DIGITS_PROBABILITIES_SIZE; digit++)
        if (probabilities[digit] > probabilities[best]) best = digit;
    return best;
}

int main(void) {
    static _Alignas(DIGITS_ALIGNMENT) float image[DIGITS_IMAGE_SIZE], probabilities[DIGITS_PROBABILITIES_SIZE];
    static _Alignas(DIGITS_ALIGNMENT) unsigned char workspace[DIGITS_WORKSPACE_BYTES + 1];
    for (int i = 0; i < DIGITS_IMAGE_SIZE; i++) image[i] = drawing[i] == '#' ? 16.0f : 0.0f;

    int error = digits_run(image, probabilities, workspace);
    if (error != DIGITS_OK) {
        fprintf(stderr, "%s\n", digits_error_string(error));
        return 1;
    }
    printf("a plain call says %d\n", most_probable(probabilities));

    digits_model *model = digits_create(&(digits_options){.threads = 2});
    if (model == NULL) return 1;
    const void *inputs[] = {image};
    void *outputs[] = {probabilities};
    error = digits_execute(model, 0, inputs, outputs);
    printf("a handle says %d; %s has %zu bytes\n", most_probable(probabilities), digits_output(0, 0)->name,
           digits_output(0, 0)->bytes);
    digits_destroy(model);
    return error;
}
