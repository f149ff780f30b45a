"""Run by a Python that has llama_cpp: the logits of every token of each prompt, in float32, as a numpy file.

Arguments: a JSON file with `model`, `lora` (a path or null), `prompts` (lists of token ids), and the file to write.
"""

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np

FLOAT32 = 0  # GGML_TYPE_F32


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    llama = llama_cpp.Llama(
        model_path=asked["model"],
        lora_path=asked["lora"],
        logits_all=True,
        type_k=FLOAT32,
        type_v=FLOAT32,
        n_ctx=256,
        n_threads=1,
        n_threads_batch=1,
        verbose=False,
    )
    found = []
    for prompt in asked["prompts"]:
        llama.reset()
        llama.eval(prompt)
        found.append(np.array(llama.scores[: len(prompt)], dtype=np.float32))
    np.savez(sys.argv[2], *found)


if __name__ == "__main__":
    main()
