"""The mean of several checkpoints' weights: python average.py OUT CHECKPOINT CHECKPOINT ...

Runs that began at the same weights end in one basin of the loss, around its lowest point (Izmailov et al. 2018, arXiv 1803.05407; Wortsman
et al. 2022, arXiv 2203.05482), so that their mean is better than each. OUT is a checkpoint for export.py, distill.py and train.py --start.
"""
import sys
from pathlib import Path

import torch


def main(out: Path, checkpoints: list[Path]) -> None:
    models = [torch.load(path, map_location="cpu")["model"] for path in checkpoints]
    mean = {name: torch.stack([model[name].float() for model in models]).mean(0) for name in models[0]}
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": mean}, out)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
