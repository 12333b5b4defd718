"""Peak memory of quantising a checkpoint, beside the size of its largest file: it should not be twice as large.

    python benchmarks/quantize_memory.py                        # a random Llama in bfloat16, 4 shards of about 300 MB
    python benchmarks/quantize_memory.py MODEL [--perplexity]   # a directory or .gguf file

Each step runs in a fresh process. Peak resident memory, mapped files included, less what the process had once
everything was imported and the checkpoint open: headers are read by then, weights are not. `--perplexity` measures the
perplexity too, as the command does. Prints one line of JSON. Linux and macOS.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WIDTH, FFN_WIDTH, HEADS, VOCABULARY = 2048, 5632, 32, 32000
LAYERS_PER_SHARD, SHARDS = 3, 4


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def make_model(folder: Path) -> None:
    """Writes a random Llama, one shard in memory at a time."""
    import torch
    from safetensors.torch import save_file

    layers = LAYERS_PER_SHARD * SHARDS
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": FFN_WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    square, up, down = (WIDTH, WIDTH), (FFN_WIDTH, WIDTH), (WIDTH, FFN_WIDTH)
    parts = {f"self_attn.{part}_proj": square for part in "qkvo"}
    parts |= {"mlp.gate_proj": up, "mlp.up_proj": up, "mlp.down_proj": down}
    generator = torch.Generator().manual_seed(0)

    def random(shape: tuple[int, int]) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * WIDTH**-0.5).bfloat16()

    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        tensors: dict[str, torch.Tensor] = {}
        for layer in range(shard * LAYERS_PER_SHARD, (shard + 1) * LAYERS_PER_SHARD):
            at = f"model.layers.{layer}"
            tensors |= {f"{at}.{part}.weight": random(shape) for part, shape in parts.items()}
            tensors |= {f"{at}.{n}_layernorm.weight": torch.ones(WIDTH) for n in ("input", "post_attention")}
        if shard == 0:
            tensors["model.embed_tokens.weight"] = random((VOCABULARY, WIDTH))
        if shard == SHARDS - 1:
            tensors |= {"lm_head.weight": random((VOCABULARY, WIDTH)), "model.norm.weight": torch.ones(WIDTH)}
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        save_file({key: value.bfloat16() for key, value in tensors.items()}, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def measure(source: Path, out: Path, with_perplexity: bool) -> dict[str, Any]:
    """Quantises in this process."""
    from mora_lite.quant.convert import quantize_checkpoint
    from mora_lite.quant.formats import open_checkpoint

    checkpoint = open_checkpoint(source)
    before, started = peak_bytes(), time.perf_counter()
    report = quantize_checkpoint(checkpoint, out)
    seconds, peak = time.perf_counter() - started, peak_bytes() - before
    largest = max(file.stat().st_size for file in checkpoint.files())
    result: dict[str, Any] = {
        "model": source.name,
        "weights": report.weights_total,
        "files": len(checkpoint.files()),
        "largest_file_mb": round(largest / 1e6, 1),
        "imports_mb": round(before / 1e6, 1),
        "peak_mb": round(peak / 1e6, 1),
        "peak_per_largest_file": round(peak / largest, 3),
        "seconds": round(seconds, 1),
    }
    if with_perplexity:
        from mora_lite.lm.perplexity import text_perplexity

        result["perplexity"] = round(text_perplexity(open_checkpoint(out)), 3)
        result["peak_with_perplexity_mb"] = round((peak_bytes() - before) / 1e6, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--perplexity", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the random model and the copy are written")
    parser.add_argument("--step", choices=("make", "measure"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step == "make":
        make_model(args.model)
        return
    if args.step == "measure":
        print(json.dumps(measure(args.model, args.folder / "out", args.perplexity)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as work:
        source = args.model or Path(work) / "random-llama"
        if args.model is None:
            source.mkdir()
            subprocess.run([sys.executable, __file__, str(source), "--step", "make"], check=True)
        # From a parent without torch: a process counts its parent's memory too.
        command = [sys.executable, __file__, str(source), "--step", "measure", "--folder", work]
        subprocess.run(command + ["--perplexity"] * args.perplexity, check=True)


if __name__ == "__main__":
    main()
