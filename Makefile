# The two commands to know: `make demo` and `make test`. Both install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin

# The drawn dancer never comes close, so nobody is pasted closer.
DEMO_FLAGS := --frame_H 64 --frame_W 128 --max_minutes 2 --per_val 10 --augment turn

.PHONY: demo test soak clean

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-web: .venv/installed requirements-web.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-web.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo/data/test: .venv/installed
	$(BIN)/python tools/make_dataset.py demo/data --size 128x64 --overwrite

demo: demo/data/test .venv/installed-web
	$(BIN)/python Trainer.py --DR demo/data --save_root demo/run --overwrite $(DEMO_FLAGS)
	$(BIN)/python Tester.py --DR demo/data --save_root demo/out --ckpt demo/run/best.ckpt
	@echo "Look at demo/out/compare_seq1.gif (pose | prediction | truth | error) and at the plots in demo/run."
	@$(BIN)/python -m tools.web_demo demo/run/best.ckpt demo/out/dancer.html --DR demo/data \
		&& echo "Open demo/out/dancer.html in a browser and drag a joint: the dancer follows." \
		|| echo "There is no page to drag the dancer on, for the reason above; the rest of the demo is complete."

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

# An hour of kills, signals, full disks and damaged checkpoints.
soak: .venv/installed-dev
	$(BIN)/python -m tests.soak --minutes 60

clean:
	rm -rf .venv demo
