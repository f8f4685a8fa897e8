"""How often Python looks for unreachable objects: seldom, as in ViTune's commands (src/tools/command.py)."""

import gc

gc.set_threshold(20_000)
