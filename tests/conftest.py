"""What several test files need: a small corpus that is made once, and the shared human recordings where they are."""
import os
from pathlib import Path

import pytest

from vaani_lib.demo import demo_sentences, make_corpus

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Twenty Gujarati sentences by two espeak-ng voices, in train/ and valid/."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "recordings", sentences=demo_sentences()[:20])


@pytest.fixture(scope="session")
def human_recordings() -> Path:
    """The first 32 clips of LJ Speech, which do not ship with the repository."""
    folder = Path(os.environ.get("VAANI_SHARED_DATA", REPO.parent / "shared" / "data")) / "en_ljspeech32"
    if not folder.is_dir():
        pytest.skip(f"no human recordings at {folder}; VAANI_SHARED_DATA may name another place")
    return folder
