"""``vitune serve``: finished runs answer over HTTP on this machine.

``folders.py`` finds runs, ``models.py`` loads them onto shared frozen backbones; ``batches.py`` collects images of
concurrent requests and ``mixed.py`` computes them together; ``app.py`` is the interface, ``guard.py`` and
``uploads.py`` what protects it.
"""
