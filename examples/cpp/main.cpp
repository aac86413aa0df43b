// Classifies the digits that come as lines of 64 numbers, and says how sure the model is.
#include <algorithm>
#include <array>
#include <iostream>
#include <vector>

#include "digits.hpp"

int main() {
    const digits::model model;
    std::vector<float> image(DIGITS_IMAGE_SIZE);
    std::array<float, DIGITS_PROBABILITIES_SIZE> probabilities;

    for (;;) {
        for (float &pixel : image)
            if (!(std::cin >> pixel)) return 0;
        model.run(image, probabilities);
        const auto best = std::max_element(probabilities.begin(), probabilities.end());
        std::cout << best - probabilities.begin() << ' ' << *best << '\n';
    }
}
