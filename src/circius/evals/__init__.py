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

A run (`circius eval`):

    item.py                Item; what is asked: Choices, Text, Passage; what comes back
    task.py                Task: items, shots, asks, judge, estimate; Sources
    tasks/                 one benchmark a file; make_task(name, Settings()), SUITES
    model.py               Model; engine_model.py: ours, by likelihood.py and the batching engine; endpoint_model.py
    questions.py           Exam: a task's items as seeded, grouped questions, with a digest
    runner.py              run(model, exams, RunFolder(path)): a line an item, going on after a kill
    results.py, beside.py  from lines to figures; published ones beside them
    show.py, report.py     as text, and as one HTML page
    comparing.py           compared(first, second): two runs, item by item
    lm_eval.py             EngineLM: lm-eval on our engine; lm_eval_task: our tasks in its form

Others:

    chats.py               conversations with a model of ours or a server's; fingerprint.py: which checkpoint that was
    mt_bench/, arena/      answers rated, or preferred, by a judge or by people
    verify/                a checkpoint against what it is known to say, and against laws
"""
