#!/usr/bin/env bash
# Set up the environment if there is none, then run the tests: bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash env_setup.sh --dev
exec .venv/bin/python -m pytest "$@"
