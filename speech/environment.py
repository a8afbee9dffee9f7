"""What of the environment a process gets that transcribes: nothing that could be a secret."""

import os
import re

from speech.models import ModelVersion
from speech.weights import is_folder

# A list of what it may know and not of what it may not: a secret can have any name. A library that needs
# another variable than these gets its line here.
_ITS_OWN = re.compile(
    "PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|TZ|TMPDIR|TEMP|TMP|XDG_CACHE_HOME|VIRTUAL_ENV|CONDA_PREFIX|PYTHON[A-Z]+"
    "|NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES|TF32_OVERRIDE)"
    "|(LC|LD|DYLD|MALLOC|GLIBC|OMP|KMP|GOMP|MKL|OPENBLAS|ORT|CT2|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|TOKENIZERS"
    "|TRANSFORMERS|CUDA|CUBLAS|CUDNN|NCCL|HIP|HSA|ROCM|ROCR|MIOPEN)_.*"
)
_TO_FETCH = re.compile(
    "HF_.*|HUGGING_?FACE_.*|SSL_CERT_.*|(REQUESTS|CURL)_CA_BUNDLE|(?i:(https?|all|no)_proxy)"
)
"""The hub's token, and a proxy's password: for a model whose weights are the hub's, and no other."""


def environment_of(model: ModelVersion) -> dict[str, str]:
    """What of the environment a process gets that transcribes with a model: no credentials, but the hub's."""
    fetches = bool(model.weights) and not is_folder(model.weights)
    lists = [_ITS_OWN, _TO_FETCH] if fetches else [_ITS_OWN]
    return {k: v for k, v in os.environ.items() if any(names.fullmatch(k) for names in lists)}
