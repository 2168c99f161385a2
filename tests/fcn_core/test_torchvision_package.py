"""torchvision is imported without PyTorch's compiler, and nothing else is different."""

import subprocess
import sys


def test_torchvision_is_there_without_the_compiler_and_the_compiler_is_itself_afterwards() -> None:
    program = (
        "import sys\n"
        "from fcn_core.torchvision_package import load_torchvision, _Later\n"
        "load_torchvision()\n"
        "load_torchvision()\n"
        "assert 'torchvision' in sys.modules\n"
        "assert [name for name in sys.modules if name.startswith('torch._dynamo')] == []\n"
        "from torchvision.ops import roi_align\n"
        "theirs = sys.modules['torchvision.ops.roi_align'].is_compile_supported\n"
        # As if another thread imported the compiler meanwhile.
        "sys.modules['torch._dynamo.utils'] = stand_in = _Later('torch._dynamo.utils')\n"
        "from torch._dynamo.utils import counters\n"
        "import torch._dynamo.utils as real\n"
        "assert real is not stand_in and sys.modules['torch._dynamo.utils'] is real and real.__file__\n"
        "assert counters is real.counters\n"
        "assert theirs('cpu') == real.is_compile_supported('cpu')\n"
        "import torch\n"
        "boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])\n"
        "assert roi_align(torch.ones(1, 1, 8, 8), boxes, 2).tolist() == [[[[1, 1], [1, 1]]]]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
