"""Graphs of tests without CUDA."""

from runtime.cuda_graph import Graphed


class OnCPU(Graphed):
    """Remembers a function instead of recording it, and calls it instead of replaying.

    Attributes:
        recorded, replayed: how often.
    """

    def __init__(self, function):
        super().__init__(function)
        self.recorded = self.replayed = 0

    def warm_up(self, device, function):
        function()

    def record(self, device, function):
        self.recorded += 1

        def replay():
            self.replayed += 1
            function()

        return replay

    def synchronize(self, device):
        pass
