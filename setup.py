"""Installs vaani_lib and drive_sync, and the `vaani` command. Names and versions come from settings.ini."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
settings = ConfigParser()
settings.read(here / "settings.ini", encoding="utf-8")
ini = settings["DEFAULT"]


def requirements(name: str) -> list[str]:
    """The requirement lines of a file, without comments."""
    lines = (line.split("#")[0].strip() for line in (here / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


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
    package_data={"vaani_lib": ["data/*"]},
    python_requires=f">={ini['min_python']}",
    # Lower bounds only: a server or Colab keeps the torch it has. requirements.txt pins the tested set.
    install_requires=["torch>=2.4", "torchaudio>=2.4", "ipywidgets>=7.7", "numpy>=2.0", *requirements("requirements-colab.txt")],
    entry_points={"console_scripts": [ini["console_scripts"]]},
    zip_safe=False,
)
