"""Runs the image's programs out of an unpacked image, without a container runtime."""

from __future__ import annotations

import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.image.contents import PLATFORMS
from deploy.image.own_python import LOADERS
