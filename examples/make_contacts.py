#!/usr/bin/env python3
"""Writes contacts.csv beside this script: 1,000 rows of which 950 are good, 25 bad and 25 duplicates.

Every number is from a range reserved for fiction: 555-0100 to 555-0199 in any North American area code, and Ofcom's
+44 7700 900000-900999 and +44 20 7946 0000-0999. The list is to be imported with the default country US. It has what
real lists have: a byte-order mark, some CRLF line ends, quoted commas, quotes and line breaks, names of many alphabets,
numbers in a dozen spellings. The same bytes come out on every run and every version of Python 3.
"""

import csv
import io
import pathlib
import random

GOOD, BAD, DUPLICATES = 950, 25, 25
BRITISH_MOBILE, BRITISH_LONDON = 180, 60

ZONES = {
    "America/New_York": "202 203 212 215 216 267 301 302 305 313 401 404 407 410 412 603 617 704 802 804 860",
    "America/Chicago": "205 214 312 314 316 402 414 501 504 512 601 612 615 713 816 901",
    "America/Denver": "303 307 385 406 505 801",
    "America/Phoenix": "480 520 602",
    "America/Los_Angeles": "206 213 310 408 415 503 619 702 775",
    "America/Anchorage": "907",
    "Pacific/Honolulu": "808",
}
AREAS = [(area, zone) for zone, areas in ZONES.items() for area in areas.split()]

FIRST_NAMES = """Ava Liam Mia Noah Zoë José Renée Siân Björn Łukasz Özge Šárka Nguyễn Søren Chloë Iñaki Aoife Naïma François
Jürgen Đorđe Žofia Håkon Élodie Anaïs Тарас Ольга Γιώργος Ελένη אורי מאיה ليلى عمر आरव प्रिया 美咲 陽翔 王芳 李明 민준 서연 Ada
Grace Alan Edsger Barbara Tony Frances Ken Margaret Radia Dennis Hedy Katherine Mary Dorothy Joan""".split()
AWKWARD_NAMES = ["Sam \"Sunny\"", "Lee, Dr.", "Anne\nMarie", "O'Neil", "  Kim  ", "Jean-Luc"]
TAGS = ["vip", "trial", "lapsed", "newsletter", "webinar", ""]
PLANS = ["basic", "plus", "premium"]
AWKWARD_PLANS = ["plus\n(yearly)", "premium, family", "the \"old\" basic"]

BAD_NUMBERS = {
    "empty": ["", "", " ", "", "-"],
    "letters": ["call the office", "n/a", "1-800-FLOWERS", "unknown", "202-555-01XX"],
    "too short": ["+1 202", "55501", "+44 7700", "12345", "0044 20"],
    "too long": ["+1 202 555 0143 0143 0143", "20255501432025550143", "+447700900123456789", "0012025550143202555014", "+12025550143000000"],
}
BAD_ZONES = ["Europe/Atlantis", "Mars/Olympus_Mons", "Pacific Time", "GMT+25", "America/Gotham"]


class Dice:
    """The one generator whose values Python promises to keep: random() of a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, limit):
        return int(self.random() * limit)

    def pick(self, things):
        return things[self.below(len(things))]

    def chance(self, share):
        return self.random() < share

    def shuffle(self, things):
        for last in range(len(things) - 1, 0, -1):
            other = self.below(last + 1)
            things[last], things[other] = things[other], things[last]


def american(area, last, style):
    """A US number in one of eight spellings, all of which a list with the default country US may hold."""
    line = f"01{last:02}"
    return [
        f"+1{area}555{line}",
        f"+1 {area}-555-{line}",
        f"+1 ({area}) 555-{line}",
        f"({area}) 555-{line}",
        f"{area}.555.{line}",
        f"{area}555{line}",
        f"1 {area} 555 {line}",
        f"001 {area} 555 {line}",
    ][style]


def british(area, subscriber, style):
    """A British number in one of four international spellings."""
    split = f"{subscriber[:-4]} {subscriber[-4:]}".strip() if area == "20" else subscriber
    return [f"+44{area}{subscriber}", f"+44 {area} {split}", f"0044{area}{subscriber}", f"0044 {area} {split}"][style]


def people(dice):
    """Good numbers, each once, as (spell, how many spellings, time zone)."""
    americans = [(area, last, zone) for area, zone in AREAS for last in range(100)]
    mobiles = [f"900{n:03}" for n in range(1000)]
    londoners = [f"79460{n:03}" for n in range(1000)]
    for numbers in (americans, mobiles, londoners):
        dice.shuffle(numbers)
    count = GOOD + len(BAD_ZONES) - BRITISH_MOBILE - BRITISH_LONDON
    found = [(lambda style, a=area, n=last: american(a, n, style), 8, zone) for area, last, zone in americans[:count]]
    found += [(lambda style, n=n: british("7700", n, style), 4, "Europe/London") for n in mobiles[:BRITISH_MOBILE]]
    found += [(lambda style, n=n: british("20", n, style), 4, "Europe/London") for n in londoners[:BRITISH_LONDON]]
    dice.shuffle(found)
    return found


def details(dice, index, zone):
    """The columns after the number."""
    name = dice.pick(AWKWARD_NAMES) if dice.chance(0.03) else dice.pick(FIRST_NAMES)
    plan = dice.pick(AWKWARD_PLANS) if dice.chance(0.02) else dice.pick(PLANS)
    email = "" if dice.chance(0.1) else f"person{index}@example.{dice.pick(['com', 'net', 'org'])}"
    return [name, email, dice.pick(TAGS), "" if dice.chance(0.15) else zone, plan]


def rows(dice):
    """All rows in file order."""
    found = people(dice)
    bad = [[number] + details(dice, 2000 + dice.below(1000), "America/New_York") for kind in BAD_NUMBERS.values() for number in kind]
    for zone in BAD_ZONES:
        spell, spellings, _ = found.pop()
        row = [spell(dice.below(spellings))] + details(dice, 3000 + dice.below(1000), zone)
        row[4] = zone
        bad.append(row)

    result = []
    for index, (spell, spellings, zone) in enumerate(found):
        style = dice.below(spellings)
        result.append([spell(style)] + details(dice, index, zone))
    # A duplicate comes somewhere after its original, two of three in another spelling.
    positions = list(range(GOOD))
    dice.shuffle(positions)
    late = []
    for turn, position in enumerate(sorted(positions[:DUPLICATES])):
        spell, spellings, zone = found[position]
        spelling = result[position][0]
        if turn % 3:
            spelling = next(text for text in map(spell, range(spellings)) if text != spelling)
        late.append((position + 1 + dice.below(GOOD - position), [spelling] + details(dice, 4000 + turn, zone)))
    late += [(dice.below(GOOD), row) for row in bad]
    for position, row in sorted(late, key=lambda item: item[0], reverse=True):
        result.insert(position, row)
    return result


def render(table, dice):
    """The file's bytes."""
    text = io.StringIO()
    for row in table:
        line_end = "\r\n" if dice.chance(0.02) else "\n"
        csv.writer(text, lineterminator=line_end).writerow(row)
    return b"\xef\xbb\xbf" + text.getvalue().encode()


def main():
    dice = Dice(20261123)
    table = rows(dice)
    assert len(table) == GOOD + BAD + DUPLICATES
    header = ["number", "first_name", "email", "tag", "timezone", "plan"]
    pathlib.Path(__file__).with_name("contacts.csv").write_bytes(render([header] + table, dice))
    print(f"{len(table)} rows: {GOOD} good, {BAD} bad, {DUPLICATES} duplicates")


if __name__ == "__main__":
    main()
