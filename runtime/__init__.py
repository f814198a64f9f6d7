"""How the scripts run: the command line, devices, processes, files."""
