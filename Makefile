# Regularization, Measured: `make book` and `make test` need Python 3.11 or later, pip and make.

PYTHON ?= python3

# The one place where these three are pinned; `make lock` copies the first two into the lock.
TORCH = 2.13.0
TORCHVISION = 0.28.0
D2L = 1.0.3
# The newest that run on every Python 3.11; a test names a locked package that wants a later one.
FOR_PYTHON_3_11_0 = 'soupsieve<3'

RUN = .venv/bin/python
GRADES ?= _grades
SOURCE ?= homework/source
NEXT = _build/next-env
BUILD = .venv/bin/jupyter-book build . -q -W --keep-going -n

.PHONY: help book pdf book-next test test-all notebooks mnist homework grade formgrader export \
  bench bench-quick lab serve lock clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

book: .venv/.stamp  ## build the book into _build/html
	@$(RUN) -m tools.rules --quick notebooks
# Sphinx does not repeat the warnings of pages that it has read, so what it remembers of a build
# that failed or was stopped is thrown away.
	@test -f _build/.clean || rm -rf _build/.doctrees
	@rm -f _build/.clean
	@$(BUILD)
	@touch _build/.clean

pdf: book  ## print the whole book into _build/book.pdf, by Chromium
	@$(RUN) -m tools.pdf

book-next: $(NEXT)/.stamp  ## build the same pages with plain Sphinx 9 into _build/next/html
	@$(NEXT)/bin/python -m sphinx -q -E -W --keep-going -n -d _build/next/.doctrees . _build/next/html

test: .venv/.stamp  ## lint, unit tests and every notebook output, on two cores
	$(RUN) -m ruff check .
	TQDM_DISABLE=1 $(RUN) -m pytest -n 2 --dist loadfile -rs

test-all: test  ## the tests of `make test`, and the long ones: homework, student editions, the PDF
	TQDM_DISABLE=1 $(RUN) -m pytest -n 2 --dist loadfile --long tests -m long

notebooks: .venv/.stamp  ## run the notebooks again, in place (and the numbers of the interactive page)
	TQDM_DISABLE=1 $(RUN) -m tools.notebooks
	$(RUN) -m tools.explore

mnist: .venv/.stamp  ## run the MNIST study again: make mnist DATA=<folder>, downloads into an empty one
	@$(RUN) -m studies.mnist "$(DATA)"

homework: .venv/.stamp  ## make what students get: notebooks and zips without solutions
	@$(RUN) -m grader.release

grade: .venv/.stamp  ## grade homework: make grade SUBMISSIONS=<folder or zip of an LMS>
	@test -n "$(SUBMISSIONS)" || { echo 'make grade SUBMISSIONS=<folder or zip>'; exit 2; }
	@$(RUN) -m grader.grade "$(SUBMISSIONS)" --grades "$(GRADES)" --source "$(SOURCE)" \
	  --assignment "$(ASSIGNMENT)"
	@$(RUN) -m grader.book load --grades "$(GRADES)" --source "$(SOURCE)"

formgrader: .venv/.stamp  ## grade by hand what a person grades, in the browser
	@test -d "$(GRADES)/nbgrader" || { echo 'there is no $(GRADES)/nbgrader: make grade comes first'; exit 2; }
	@cd "$(GRADES)/nbgrader" && PATH="$(CURDIR)/.venv/bin:$$PATH" $(CURDIR)/$(RUN) -m jupyterlab \
	  --config nbgrader_config.py --LabApp.default_url=/formgrader

export: .venv/.stamp  ## take the grades that a person gave into grades.csv and feedback
	@$(RUN) -m grader.book export --grades "$(GRADES)"

bench: .venv/.stamp  ## measure this book beside what you would use instead; writes its page
	@$(RUN) -m benchmarks

bench-quick: .venv/.stamp  ## the same at small sizes, to see that nothing is broken
	@$(RUN) -m benchmarks --quick

lab: .venv/.stamp  ## open JupyterLab on the notebooks
	$(RUN) -m jupyterlab notebooks

serve: .venv/.stamp  ## show the book at http://127.0.0.1:8000 and rebuild it on change
	@$(RUN) -m tools.serve

lock:  ## write requirements.lock anew (wants PYTHON=python3.11, the oldest one supported)
	@$(PYTHON) -c 'import sys; sys.version_info[:2] == (3, 11) or sys.exit("make lock: \
	this is Python " + sys.version.split()[0] + "; run make lock PYTHON=python3.11")'
	rm -rf _build/lock
	$(PYTHON) -m venv _build/lock
	_build/lock/bin/pip install torch==$(TORCH) torchvision==$(TORCHVISION) \
	  $(FOR_PYTHON_3_11_0) -e '.[test,pdf,homework]'
	{ echo '# Written by `make lock` on Python 3.11. The Makefile adds d2l without its 2023 pins.'; \
	  _build/lock/bin/pip list --format freeze --exclude-editable --exclude pip; \
	} | sed 's/+[a-z0-9.]*$$//' > _build/lock.txt
	grep -q '^torch==$(TORCH)$$' _build/lock.txt
	mv _build/lock.txt requirements.lock
	rm -rf _build/lock

clean:  ## remove the built book, caches and .venv
	rm -rf .venv _build .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} + -o \
	  -name .ipynb_checkpoints -prune -exec rm -rf {} +

# The stamp comes last, so a half-built environment never looks finished; it starts afresh.
.venv/.stamp: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("This book needs \
	Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ". \
	Name another one: make PYTHON=python3.12")'
	test -f .venv/.stamp || rm -rf .venv
	$(PYTHON) -m venv .venv
	$(RUN) -m pip install -r requirements.lock
	$(RUN) -m pip install --no-deps --no-build-isolation d2l==$(D2L) -e .
	touch .venv/.stamp

$(NEXT)/.stamp: requirements-next.txt
	rm -rf $(NEXT)
	$(PYTHON) -m venv $(NEXT)
	$(NEXT)/bin/python -m pip install -r requirements-next.txt
	touch $(NEXT)/.stamp
