"""One thread for torch, here and in every process a test starts: the networks of the suite are tiny, and threads that
wait for each other on busy cores take minutes for what one does in seconds.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
