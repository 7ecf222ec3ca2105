"""One report of correctness and speed on a GPU: see ``../README.md``.

The program itself needs the standard library only. What imports torch runs in
processes of its own (:mod:`gpu_report.measure`), each with a time limit.
"""
