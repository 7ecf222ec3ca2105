"""torchrun without a traceback of its own when a process has failed.

The process that failed has said why; torchrun would add forty lines below it.
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
