"""Bits of each layer chosen by auto-round's AutoScheme, as JSON. Run by `mixed_bits.py` in a separate process:

    python tests/benchmarks/peer_scheme.py MODEL TEXTS BUDGETS OUT

BUDGETS is a list such as 2.5,3.0,3.5; OUT receives {"seconds": ..., "maps": {budget: {layer: bits}}}. Uses
AutoScheme's defaults (16 samples of 256 tokens, the gradient of the loss) with the options 2, 3, 4 and 8 bits in
symmetric groups of 64.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


class _InputCaptured(Exception):  # noqa: N818 - control flow, not an error
    """Exception raised when the schemes are known, to skip the tuning."""


def main(model: str, texts: str, budgets: list[float], out: Path) -> None:
    from auto_round import AutoRound
    from auto_round.auto_scheme import gen_auto_scheme
    from auto_round.schemes import QuantizationScheme
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = [QuantizationScheme(bits=bits, group_size=64, sym=True, data_type="int") for bits in (2, 3, 4, 8)]
    found: dict[str, dict[str, int]] = {}
    seconds: list[float] = []
    score = gen_auto_scheme.GenScheme.get_layer_config

    def watch(generator: gen_auto_scheme.GenScheme) -> None:
        began = time.monotonic()
        layers = score(generator)
        seconds.append(time.monotonic() - began)
        for budget, config in layers.items():
            found[str(budget)] = {name: int(scheme["bits"]) for name, scheme in config.items() if "bits" in scheme}
        raise _InputCaptured

    gen_auto_scheme.GenScheme.get_layer_config = watch
    scheme = gen_auto_scheme.AutoScheme(avg_bits=budgets, options=options, dataset=texts, nsamples=16, seqlen=256)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    try:
        rounder = AutoRound(loaded, AutoTokenizer.from_pretrained(model), scheme=scheme, dataset=texts, iters=0)
        rounder.quantize()
    except _InputCaptured:
        pass
    out.write_text(json.dumps({"seconds": sum(seconds), "maps": found}), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [float(part) for part in sys.argv[3].split(",")], Path(sys.argv[4]))
