"""The homework's grader: student code runs in a sandbox, and checks judge the data it returns.

assignment.py   reads a source assignment: its cells, questions, points and checks
release.py      makes the students' notebooks and zips, and looks for leaks    (make homework)
collect.py      finds the submissions in a folder or in a zip of an LMS
rebuild.py      a student's answers in the instructor's notebook, as steps to run
sandbox.py      a process that sees nothing and reaches nothing; inside.py runs in it
answers.py      what comes back from it, as plain data
grade.py        runs, checks, writes grades; a whole batch                       (make grade)
feedback.py     the page that a student gets
book.py         hands the results to nbgrader's formgrader, and exports them
"""
