"""MT-Bench in single-answer mode: 80 questions of two turns, and a judge who rates every answer from 1 to 10.

answer  the model's answers, at FastChat's temperatures, some seeds
judge   the judge's prompts, and what he says as a rating
score   means over questions, turns and categories; deviations over seeds
run     all of it, line by line into two journals, so that a run goes on after a kill
"""
