#!/usr/bin/env bash
# Make the Python environment .venv with the pinned requirements. Safe to run again: it does nothing when all is there.
#
#   bash env_setup.sh          what training needs
#   bash env_setup.sh --dev    with what tests and linting need
#
# PYTHON=python3.12 bash env_setup.sh    chooses the interpreter (3.11 or newer)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

requirements=requirements.txt
[ "${1:-}" = "--dev" ] && requirements=requirements-dev.txt

python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in python3 python3.13 python3.12 python3.11; do
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

# What is installed is recorded in the environment itself, so that nothing is installed twice or from a half-made one.
wanted=$(cat requirements.txt "$requirements" | cksum)
stamp=.venv/installed-$requirements
full=.venv/installed-requirements-dev.txt
dev_wanted=$(cat requirements.txt requirements-dev.txt | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || [ "$(cat "$full" 2>/dev/null)" = "$dev_wanted" ]; then
  exit 0
fi

if ! [ -x .venv/bin/python ]; then
  echo "making .venv with $("$python" --version)"
  "$python" -m venv .venv || {
    echo "error: '$python -m venv' failed; on Debian or Ubuntu install python3-venv" >&2
    exit 1
  }
fi
echo "installing $requirements into .venv (once, a few minutes, about 5 GB with torch)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements"
.venv/bin/python -c 'import timm, torch, torchvision; print("ready: torch", torch.__version__, "timm", timm.__version__)'
echo "$wanted" >"$stamp"
