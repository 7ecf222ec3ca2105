"""torchrun without its own traceback if a process fails.

The failed process has printed the reason; torchrun would add forty lines.
"""

import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    try:
        main()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else 1)
    except (SignalException, KeyboardInterrupt):
        sys.exit(130)
