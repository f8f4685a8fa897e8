#!/usr/bin/env bash
# Create the Python environment .venv with ViTune and the tested versions of requirements.lock. Safe to run again: it
# does nothing when everything is in place.
#
#   bash env_setup.sh          what training, export and serving need
#   bash env_setup.sh --dev    plus what tests, linting and the documentation need
#
# PYTHON=python3.12 bash env_setup.sh    chooses the interpreter (3.11 or newer)
#
# uv installs the packages where it is on PATH, pip elsewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

extra=onnx,serve
[ "${1:-}" = "--dev" ] && extra=dev

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      python=$candidate
      break
    fi
  done
fi
if [ -z "$python" ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: ViTune needs Python 3.11 or newer; install one, or name it: PYTHON=/path/to/python3.12 bash env_setup.sh" >&2
  exit 1
fi

# The environment itself records what was installed, so that nothing is installed twice or on top of a partial install.
wanted=$(cat requirements.lock pyproject.toml setup.py | cksum)
if [ "$(cat .venv/installed-$extra 2>/dev/null)" = "$wanted" ] || [ "$(cat .venv/installed-dev 2>/dev/null)" = "$wanted" ]; then
  exit 0
fi

if ! [ -x .venv/bin/python ]; then
  echo "creating .venv with $("$python" --version)"
  "$python" -m venv .venv || {
    echo "error: '$python -m venv' failed; on Debian or Ubuntu install python3-venv" >&2
    exit 1
  }
fi
echo "installing ViTune and what '$extra' needs into .venv (once, a few minutes, about 5 GB with torch)"
if command -v uv >/dev/null; then
  uv pip install --quiet --python .venv/bin/python --constraint requirements.lock --editable ".[$extra]"
else
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable ".[$extra]"
fi
.venv/bin/python -c 'import timm, torch, torchvision; print("ready: torch", torch.__version__, "timm", timm.__version__)'
echo "$wanted" >".venv/installed-$extra"
