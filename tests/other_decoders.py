"""A voice's decoder by other means than Vaani's own: in bfloat16, in int8 by ONNX Runtime, and compiled by PyTorch."""
import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.exc import BackendCompilerFailed

from vaani_lib.chunks import before_decoding
from vaani_lib.decoder import decode
from vaani_lib.demo import demo_sentences
from vaani_lib.voice import Voice

Decoder = Callable[[Tensor, Tensor | None], Tensor]
CALIBRATING = demo_sentences()[3:8]  # static int8 takes the range of each value from these


def before(voice: Voice, text: str) -> tuple[Tensor, Tensor | None]:
    """What the decoder reads: latents (1, C, F), and (1, S, 1) of the speaker where there are several."""
    torch.manual_seed(0)
    ids = voice.tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad(), before_decoding(voice.model) as kept:
        voice.model(ids, speaker_id=0 if len(voice.speakers) > 1 else None)
    return kept[0]


def speak(voice: Voice, decoder: Decoder, text: str) -> np.ndarray:
    with torch.no_grad():
        return decoder(*before(voice, text))[0, 0].float().numpy()


def in_bfloat16(voice: Voice) -> Decoder:
    """Its sums in bfloat16."""
    narrow = copy.deepcopy(voice.model.decoder).bfloat16()
    return lambda latents, speaker: decode(narrow, latents.bfloat16(), None if speaker is None else speaker.bfloat16())


def compiled(voice: Voice, text: str) -> Decoder | None:
    """By torch.compile, for sentences of any length; None, and why is said, where it cannot: it needs a C++ compiler."""
    torch.compiler.config.force_disable_caches = True  # they would hand over code for another number of threads
    made = torch.compile(decode, dynamic=True)
    decoder = lambda latents, speaker: made(voice.model.decoder, latents, speaker)
    try:
        speak(voice, decoder, text)
    except BackendCompilerFailed as error:  # no compiler, or none of Python's headers
        print(f"The compiled decoder is left out. {str(error).strip().splitlines()[0]}")
        return None
    return decoder


def in_int8(voice: Voice, folder: Path, static: bool) -> Decoder:
    """As onnxruntime.quantization makes it: with the ranges of `CALIBRATING` if `static`, else found while it speaks."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain, narrow = folder / "decoder.onnx", folder / "decoder_int8.onnx"
    write_decoder(voice, plain)
    quant_pre_process(plain, plain, skip_symbolic_shape=True)  # else each call below asks for it
    kept = {"nodes_to_exclude": ["/conv_post/Conv"]}  # the sound itself: 8 bits of it double the distortion
    if static:
        calibration = Calibration(given(*before(voice, text)) for text in CALIBRATING)
        quantize_static(plain, narrow, calibration, op_types_to_quantize=["Conv"], per_channel=True, **kept)
    else:  # unsigned: ConvInteger is slow with signed weights
        quantize_dynamic(plain, narrow, weight_type=QuantType.QUInt8, **kept)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(narrow, options, providers=["CPUExecutionProvider"])
    return lambda *read: torch.from_numpy(session.run(None, given(*read))[0])


class Calibration:
    """onnxruntime.quantization's CalibrationDataReader."""

    def __init__(self, inputs):
        self.inputs = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.inputs, None)


def given(latents: Tensor, speaker: Tensor | None) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in zip(("latents", "speaker"), (latents, speaker)) if tensor is not None}


def write_decoder(voice: Voice, file: Path) -> None:
    """Only the decoder, with the frames as a dynamic length."""
    read = [tensor for tensor in before(voice, CALIBRATING[0]) if tensor is not None]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(voice.model.decoder, tuple(read), file, input_names=["latents", "speaker"][: len(read)],
                          output_names=["y"], dynamic_axes={"latents": {2: "frames"}, "y": {2: "samples"}}, opset_version=17,
                          dynamo=False)
