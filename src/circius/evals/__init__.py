"""Measuring a model as the paper does, with everything that decides a number in the open.

What needs no model:

    scoring/answers.py     cut_answer, llama_form, triviaqa_form, nq_form, squad_form, exact_match
    scoring/f1.py          word_f1, best_f1, quac_references, quac_f1, human_f1, QUAC_MIN_HUMAN_F1
    scoring/gsm8k.py       extract(text), gold(answer): the number as plain text, or None
    scoring/maths.py       last_boxed, final_answer, extract(text), gold(solution)
    scoring/minerva.py     normalise(answer): Minerva's form of a final answer
    scoring/equality.py    is_equal(given, wanted): text, then values; a prover (provers.py) only if it is named
    scoring/vote.py        majority(answers, loglikelihoods, same=...) -> Vote(answer, n_votes, n_parsed, n)
    scoring/pass_at_k.py   pass_at_k(n, n_passed, k)
    scoring/choice.py      ChoiceScores: raw, per_character, per_byte, minus_unconditional, and which choice each takes
    scoring/bbh.py         extract_direct(text), extract_cot(text), is_right(given, target)
    scoring/agieval.py     letter(text, labels), official_letter(text)
    scoring/code.py        HUMANEVAL_STOPS, MBPP_STOPS, cut, humaneval_program, mbpp_program

    metrics/interval.py    Estimate(value, low, high, n, method); proportion, mean
    metrics/paired.py      compare(a, b) -> Paired: the same items under two runs
    metrics/equivalent.py  curves(), equivalent_size(score, points) -> Equivalent: the Llama 2 of that score
    metrics/published.py   figures(...) -> Figure: what others reported, with source and mark

    sandbox/               run(program, timeout_s=, memory_bytes=) -> Verdict(passed, why, seconds)
    data/                  fetch, eval_home; data/sets/NAME.py: read_NAME(home=None) -> typed docs of one benchmark

Scoring imports nothing but the standard library; metrics nothing of a model.
"""
