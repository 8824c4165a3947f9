"""Installs vaani_lib and drive_sync, and the `vaani` command. Names and versions come from settings.ini."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
settings = ConfigParser()
settings.read(here / "settings.ini", encoding="utf-8")
ini = settings["DEFAULT"]


def colab_lacks() -> list[str]:
    """requirements-colab.txt without its comments."""
    lines = (here / "requirements-colab.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in (line.split("#")[0].strip() for line in lines) if line]


# Lower bounds: a server or Colab keeps what it has. requirements.txt pins the tested set.
REQUIRES = [
    "torch>=2.6",
    "torchaudio>=2.6",
    "transformers>=4.57",
    "numpy>=2.0",
    "librosa>=0.11",
    "soundfile>=0.13",
    "scipy>=1.11",
    "soxr>=0.5",
    "matplotlib>=3.8",
    "tensorboard>=2.16",
    "safetensors>=0.4",
    "pyyaml>=6",
    "ipython>=7.34",
    "ipywidgets>=7.7",
    "tqdm>=4.66",
]

# What one command needs and the others do not.
EXTRAS = {
    "onnx": ["onnx>=1.17", "onnxruntime>=1.20"],  # vaani export --to onnx
    "serve": ["gradio>=6", "prometheus-client>=0.20"],
    "whisper-8bit": ["bitsandbytes>=0.46"],  # vaani whisper --optimizer adamw_8bit
}

setup(
    name=ini["lib_name"],
    version=ini["version"],
    description=ini["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    keywords=ini["keywords"],
    author=ini["author"],
    author_email=ini["author_email"],
    url=ini["git_url"],
    license="Apache-2.0",
    packages=["vaani_lib", "drive_sync"],
    package_data={"vaani_lib": ["data/*", "data/compact/*"]},
    python_requires=f">={ini['min_python']}",
    install_requires=REQUIRES + colab_lacks(),
    extras_require=EXTRAS,
    entry_points={"console_scripts": [ini["console_scripts"]]},
    zip_safe=False,
)
