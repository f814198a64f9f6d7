# `make demo` and `make test` install what they need into .venv.
PYTHON ?= python3
BIN := .venv/bin

# The load average at the start would count the drawing of the dataset.
THREADS := --threads $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
# Epochs, so that a slow machine gives the same pictures. No copy_paste, which moves the person towards the
# camera: the synthetic person never comes close.
DEMO_FLAGS := --frame_H 64 --frame_W 128 --batch_size 1 --tta 1 --num_epoch 12 --per_val 100 --augment affine

.PHONY: demo test clean

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-web: .venv/installed requirements-web.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-web.txt
	touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-video.txt requirements-web.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo/data/test: .venv/installed
	$(BIN)/python tools/make_dataset.py demo/data --size 128x64 --overwrite

demo: demo/data/test .venv/installed-web
	$(BIN)/python Trainer.py --DR demo/data --save_root demo/run --overwrite $(DEMO_FLAGS) $(THREADS)
	$(BIN)/python Tester.py --save_root demo/out --ckpt demo/run/best.ckpt $(THREADS)
	@echo "Look at demo/out/compare_seq0.gif (pose | prediction | truth | error) and at the plots in demo/run."
	@$(BIN)/python -m tools.web_demo demo/run/best.ckpt demo/out/dancer.html --camera --title "The synthetic dancer" \
		&& echo "Open demo/out/dancer.html in a browser. Drag a joint, or press Start camera: the person follows." \
		|| echo "No web demo, for the reason above; everything else is complete."

# The last lines list the skipped tests, with the reason.
test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile -rs

clean:
	rm -rf .venv demo
