_base_ = './vim-small_8xb64_in1k.py'
_deprecation_ = dict(expected='vim-small_8xb64_in1k.py')
