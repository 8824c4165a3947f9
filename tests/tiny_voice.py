"""A voice and a corpus so small that a step takes a tenth of a second: for tests of what a run keeps, not how it sounds."""
from pathlib import Path

import torch
from transformers import VitsConfig, VitsModel

from vaani_lib import recipes
from vaani_lib.base import compact_tokenizer, save_voice
from vaani_lib.config import TrainSettings
from vaani_lib.corpus import prepare
from vaani_lib.demo import DEMO_VOICES, demo_sentences, make_corpus
from vaani_lib.layouts import read_corpus
from vaani_lib.vits import initialise

STEPS = 2  # an epoch: 7 clips make a step of 2 + 2 and one of 2 + 1


def narrow_discriminators(patch=setattr) -> None:
    """Discriminators of 20 thousand weights instead of 48 million: 36 MB a checkpoint would be most of the time."""
    patch(recipes, "discriminator_divisor", lambda model: 64)


def make_voice(folder: Path, seed: int = 0) -> Path:
    """A VITS of 14 thousand weights with MMS's frames and two speakers, as a plain Hugging Face folder."""
    tokenizer, speakers = compact_tokenizer(), tuple(sorted(DEMO_VOICES))
    small = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, ffn_dim=16, flow_size=8, layerdrop=0.0)
    decoder = dict(upsample_initial_channel=16, upsample_rates=[8, 8, 4], upsample_kernel_sizes=[16, 16, 8],
                   resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]])
    rest = dict(use_stochastic_duration_prediction=False, duration_predictor_filter_channels=8,
                prior_encoder_num_flows=2, prior_encoder_num_wavenet_layers=1, posterior_encoder_num_wavenet_layers=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VitsModel(VitsConfig(vocab_size=len(tokenizer), num_speakers=len(speakers), speaker_embedding_size=4,
                                     spectrogram_bins=513, sampling_rate=16000, **small, **decoder, **rest))
        initialise(model)
    save_voice(model, tokenizer, speakers, folder)
    return folder


def make_recordings(folder: Path, sentences: slice = slice(9)) -> Path:
    """Nine sentences of two words, 7 to train on and 2 to validate with, by two voices; a prepared set."""
    short = [" ".join(sentence.split()[:2]) + "." for sentence in demo_sentences()[sentences]]
    corpus = read_corpus(make_corpus(folder / "recordings", sentences=short, valid_share=0.22))
    prepare(corpus, folder / "prepared")
    return folder / "prepared"


def settings(base: Path, epochs: int, **others) -> TrainSettings:
    """Accumulation, an incomplete last step, a schedule that can be seen."""
    chosen = dict(learning_rate=1e-3, learning_rate_decay=0.9, batch_size=2, grad_accum=2, segment_frames=8, seed=7)
    return TrainSettings(base=str(base), epochs=epochs, **chosen | others)
