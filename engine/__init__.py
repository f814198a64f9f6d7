"""How a run goes: options, schedules, the optimisation step, checkpoints, records."""
