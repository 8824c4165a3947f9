"""Puts a run's last voice into the library, in half precision: `python recipes/compact_voice/embed.py RUN`.

The last and not the best: a voice that discriminators teach gains in sound what it loses in mel. Its discriminators, from
the newest checkpoint, go beside it where the run has some.
"""
import sys
from pathlib import Path

from vaani_lib.base import COMPACT, folded_weights, load_voice, save_description
from vaani_lib.discriminator_weights import find_discriminators, in_our_names
from vaani_lib.state import save_tensors


def main(run: Path) -> int:
    base = load_voice(run / "last")
    # a synthesiser says the same each time, and so does this voice, nearly; and every token of a VITS lasts whole frames, rounded up
    base.model.config.noise_scale, base.model.config.speaking_rate = 0.05, 1.25
    save_description(base, COMPACT)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in folded_weights(base.model).items()}
    save_tensors(weights, COMPACT / "model.safetensors", {"format": "pt"})
    (COMPACT / "discriminator.safetensors").unlink(missing_ok=True)
    if found := find_discriminators(str(run), print):
        state = {f"discriminator.{name}": tensor.half().contiguous() for name, tensor in in_our_names(found[1]).items()}
        save_tensors(state, COMPACT / "discriminator.safetensors")
    for file in sorted(COMPACT.iterdir()):
        print(f"{file.stat().st_size / 1e6:6.2f} MB  {file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
