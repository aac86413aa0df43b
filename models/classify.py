"""Classifies the held-out digits with a compiled model: python models/classify.py MODEL.gopt"""

import sys

import digits
import graphopt_runtime


def main(path: str) -> None:
    """Run the artifact image by image, show one digit and print the accuracy."""
    _, held_out = digits.load()
    model = graphopt_runtime.load(path)
    name = model.get_inputs()[0].name
    found = [int(model.run(None, {name: image[None]})[0].argmax()) for image in held_out.images]
    correct = sum(int(one == label) for one, label in zip(found, held_out.labels, strict=True))
    print(drawing(held_out.images[0, 0]))
    print(f"this digit is a {held_out.labels[0]}, the model says {found[0]}")
    print(f"{correct} of {len(found)} held-out digits right ({correct / len(found):.1%})")


def drawing(pixels: digits.Pixels) -> str:
    """Grey levels 0..16 as characters."""
    shades = " .:-=+*#%@"
    return "\n".join("".join(shades[int(level) * 9 // 16] * 2 for level in row) for row in pixels)


if __name__ == "__main__":
    main(sys.argv[1])
