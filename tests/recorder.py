"""A recorder of graphs for tests without CUDA."""

import torch

from runtime.cuda_graph import Recorder


class OnCPU(Recorder):
    """Remembers a function instead of recording it, and calls it instead of replaying.

    Attributes:
        recorded, replayed: how often.
    """

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.recorded = self.replayed = 0

    def warm_up(self, function):
        function()

    def record(self, function):
        self.recorded += 1

        def replay():
            self.replayed += 1
            function()

        return replay

    def synchronize(self):
        pass
