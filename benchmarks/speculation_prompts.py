"""Prompts for `bench_speculation.py`: three whose answers repeat much of a quoted text, and one that quotes nothing."""

REPORT = """\
The harbour board of Port Ellery met on Tuesday evening to decide what becomes of the old ferry terminal. The building,
put up in 1962, has stood empty since the ferry line to Saint Brannock closed four years ago. Its roof leaks, two of its
three lifts do not work, and the insurance alone costs the board 48,000 pounds a year.

Three plans were on the table. The first, from the architects Marlow and Finch, keeps the outer walls and turns the hall
into a covered market with forty stalls. The second, from the housing trust, would pull the terminal down and build
sixty flats, a third of them for people on low incomes. The third, put forward by the sailing club, would keep the
building as it is and use the ground floor as a boathouse and a school for young sailors.

Helen Okafor, who chairs the board, said that the market would bring visitors, but that the flats would bring people who
stay. "We have eleven hundred names on the waiting list for homes in this town," she said. Tom Reyes of the sailing club
answered that flats can be built anywhere, while there is only one quay deep enough for a training ship.

After two hours the board voted seven to four for the covered market, on the condition that Marlow and Finch find half
of the money by the end of March. If they do not, the housing trust's plan will be taken up again in April."""

LETTER = """\
Dear Ms Whitcombe,

thank you for your letter of 3 May about the repair of the boiler in the flat at 17 Canal Street. I am sorry that you
had to wait so long for an answer. Our engineer came to the house on 28 April, but nobody was at home, and he left a
card under the door of the flat. We now propose to send him again on Thursday 19 May between nine and twelve in the
morning. The work will take about two hours. The water must be turned off while he works, so please fill a kettle before
he comes.

You also asked who pays for the repair. The boiler is part of the building, so the cost is ours. If the engineer finds
that the thermostat in the flat was damaged by the tenant, we would have to charge 85 pounds for a new one.

Please call me on 0117 496 0018 if the day does not suit you.

Yours sincerely,
Daniel Hartley
Canal Street Housing"""

CODE = """\
class Account:
    def __init__(self, owner, balance=0):
        self.owner = owner
        self.balance = balance
        self.history = []

    def deposit(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance = self.balance + amount
        self.history.append(("deposit", amount))

    def withdraw(self, amount):
        if amount <= 0:
            raise ValueError("amount must be positive")
        if amount > self.balance:
            raise ValueError("not enough money")
        self.balance = self.balance - amount
        self.history.append(("withdraw", amount))

    def transfer(self, other, amount):
        self.withdraw(amount)
        other.deposit(amount)

    def statement(self):
        lines = [f"Statement for {self.owner}"]
        for kind, amount in self.history:
            lines.append(f"{kind}: {amount}")
        lines.append(f"balance: {self.balance}")
        return "\\n".join(lines)"""

PROMPTS = {
    "summarise": f"Summarise this report in five sentences, and quote what was said.\n\n{REPORT}",
    "edit": "Write this letter again with the name Hartley changed to Brooks and the time to two in the afternoon. "
    f"Change nothing else.\n\n{LETTER}",
    "code": f"Add a docstring to every method of this class and give back the whole class.\n\n```python\n{CODE}\n```",
    "free": "Write a short story about a lighthouse keeper who finds a letter in a bottle.",
}
