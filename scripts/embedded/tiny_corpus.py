"""Generate the text that the base model `tiny` is pretrained on: small grammars over hand-written word lists.

    python scripts/embedded/tiny_corpus.py              # rewrites data/general/heldout.jsonl
    python scripts/embedded/tiny_corpus.py --show 20    # prints passages of the pretraining stream

The stream teaches everyday Chinese and English, instruction formats, and what complaints mean: every wording
in data/medicine/lexicon.yaml, including the held-out ones, is paraphrased, named and translated. Medicines occur
only by name (shelves, prices, forms). No passage contains both a medicine and a complaint or a use, so that the
mapping from complaint to medicine is left for fine-tuning to teach.
"""

import argparse
import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).resolve().parents[2] / "data"
EOS, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
HELDOUT_SEED, HELDOUT_SIZE = 77, 160
DIGITS = "零一二三四五六七八九十"
LINKS = ("，", "、", "，又", "，而且", "，还", "，同时", "，以及", "，再加上", "，另外", "，并且")
FORMS = ("片", "丸", "颗粒", "胶囊", "膏", "口服液", "散", "水", "糖浆")

ALPACA = (
    "Below is an instruction that describes a task. Write a response that completes it.\n\n"
    "### Instruction:\n{i}\n\n### Input:\n{x}\n\n### Response:\n{y}"
)
FORMATS: tuple[tuple[str, float], ...] = (  # text before {y} is the prompt of a passage, the rest its answer
    ("Instruction: {i}\nInput: {x}\nAnswer: {y}", 6),
    (f"{IM_START}user\n{{i}}\n{{x}}{IM_END}\n{IM_START}assistant\n{{y}}{IM_END}", 2),
    (ALPACA, 0.5),
    ("{i}{x}\n{y}", 6),
)


# Prompt and answer, joined to make the passage; a passage that is not a task has an empty prompt.
Passage = tuple[str, str]


def read(path: str) -> Any:
    """A YAML file under data/."""
    return yaml.safe_load((DATA / path).read_text(encoding="utf-8"))


def lines(path: str) -> list[str]:
    """The passages of a text file under data/, one per line."""
    return (DATA / path).read_text(encoding="utf-8").splitlines()


class Grammar:
    """Draws passages, one method per kind of passage; all randomness comes from `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.words = read("tiny_corpus/words.yaml")
        self.passages = lines("tiny_corpus/passages.txt")
        lexicon = read("medicine/lexicon.yaml")
        self.says = {c: [*v["train"], *v["validation"], *v["test"]] for c, v in lexicon.items()}
        self.english = {c: v["en"] for c, v in lexicon.items()}
        self.part = {c: v["part"] for c, v in lexicon.items()}
        self.concepts = list(lexicon)
        frames = read("medicine/frames.yaml")
        asked = [frames[split] for split in ("train", "validation", "test")]
        self.opens = ["", "他", "她一直", *self.words["people"]]
        self.opens += [text for split in asked for texts in split["open"].values() for text in texts]
        self.closes = ["。", "，怎么回事？", "，很难受。", *(text for split in asked for text in split["close"])]
        self.medicines = {name: v["pinyin"] for name, v in read("medicine/medicines.yaml").items()}
        kinds: list[tuple[Callable[[], Passage | str], float]] = [
            (self.paraphrase, 8),
            (self.naming, 16),
            (self.summary, 36),
            (self.mentioned, 8),
            (self.retelling, 4),
            (self.shelf, 5),
            (self.term, 4),
            (self.passage, 2),
            (self.everyday, 4),
            (self.dictionary, 4),
            (self.reckoning, 3),
            (self.knowledge, 3),
            (self.advice, 3),
        ]
        self.kinds, self.weights = zip(*kinds, strict=True)

    def draw(self, glossary: float = 0.15) -> Passage:
        """One passage without the end-of-text token; `glossary` is the fraction of bare dictionary entries."""
        if self.rng.random() < glossary:
            return self.entry()
        made = self.rng.choices(self.kinds, self.weights)[0]()
        return ("", made) if isinstance(made, str) else made

    # Complaints: these never name a medicine.

    def task(self, instruction: str, text: str, answer: str) -> Passage:
        formats, weights = zip(*FORMATS, strict=True)
        before, after = self.rng.choices(formats, weights)[0].split("{y}")
        return before.format(i=instruction, x=text), answer + after

    def say(self, concept: str, but: str = "") -> str:
        """A wording of the concept other than `but`."""
        return self.rng.choice([words for words in self.says[concept] if words != but])

    def paraphrase(self) -> Passage | str:
        concept = self.rng.choice(self.concepts)
        first = self.say(concept)
        second = self.say(concept, but=first)
        if self.rng.random() < 0.4:
            link = self.rng.choice(["也就是", "和下面是一个意思：", "换句话说，就是", "等于说"])
            return f"“{first}”{link}“{second}”。"
        return self.task(self.rng.choice(["换一种说法。", "用别的话说。"]), first, second + "。")

    def entry(self) -> Passage:
        """A wording and its name, as a bare dictionary entry."""
        concept = self.rng.choice(self.concepts)
        return self.say(concept) + "——", concept

    def naming(self) -> Passage | str:
        concept = self.rng.choice(self.concepts)
        words, english, part = self.say(concept), self.english[concept], self.part[concept]
        form = self.rng.randrange(10)
        if form == 0:
            return f"“{words}”简称{concept}，英文是 {english}，属于{part}。"
        if form == 1:
            return self.task("译成中文。", english, words + "。")
        if form == 2:
            return self.task("说的是哪个部位？", words, part + "。")
        if form <= 4:
            return self.task("译成英文。", words, english + ".")
        return self.task("简称是什么？", words, concept + "。")

    def complaint(self, concepts: list[str]) -> str:
        """A sentence that complains of all concepts (at least two), in order."""
        words = [self.say(concept) for concept in concepts]
        rng, link = self.rng, self.rng.choice(LINKS)
        opening, close = rng.choice(self.opens), rng.choice(self.closes)
        return (
            opening + rng.choice(["，", "、"]).join(words[:-1]) + (link if len(words) > 1 else "") + words[-1] + close
        )

    def some(self) -> list[str]:
        """Two to four different concepts."""
        return self.rng.sample(self.concepts, self.rng.choice([2, 2, 3, 3, 4]))

    def summary(self) -> Passage:
        concepts = self.some()
        text, form = self.complaint(concepts), self.rng.randrange(6)
        # Sorted by the lexicon, not by the text: to predict the first word, the model must have read all complaints.
        concepts.sort(key=self.concepts.index)
        if form == 0:
            return self.task("用英文列出症状。", text, ", ".join(self.english[c] for c in concepts) + ".")
        if form == 1:
            return self.task("列出涉及的部位。", text, "、".join(dict.fromkeys(self.part[c] for c in concepts)) + "。")
        return self.task("概括病人的症状。", text, "、".join(concepts) + "。")

    def mentioned(self) -> Passage:
        concepts = self.some()
        asked = self.rng.choice(concepts if self.rng.random() < 0.5 else self.concepts)
        answer = "有。" if asked in concepts else "没有。"
        return self.task(f"病人有没有{asked}？", self.complaint(concepts), answer)

    def retelling(self) -> str:
        concepts = self.some()
        who = self.rng.choice(self.words["people"])
        first = "，".join(self.say(c) for c in concepts)
        self.rng.shuffle(concepts)
        again = "，".join(self.say(c) for c in concepts)
        link = self.rng.choice(["医生记下：", "大夫问：是不是", "换句话说：", "护士重复说："])
        return f"{who}说：{first}。{link}{again}。"

    # Medicines by name: these never mention a complaint or a use.

    def shelf(self) -> Passage | str:
        rng = self.rng
        names = rng.sample(list(self.medicines), rng.randint(2, 4))
        name, form = names[0], rng.randrange(6)
        if form == 0:
            return f"药店的架子上摆着{'、'.join(names)}。"
        if form == 1:
            return f"{name}是一种中成药，拼音是 {self.medicines[name]}。"
        if form == 2:
            ordered = sorted(names, key=self.medicines.__getitem__)
            return self.task("按拼音排序。", "、".join(names), "、".join(ordered) + "。")
        if form == 3:
            return f"{rng.choice(self.words['people'])}买了{rng.randint(1, 5)}盒{name}，一盒{rng.randint(8, 60)}元。"
        if form == 4:
            made = next((f for f in FORMS if name.endswith(f)), "其他剂型")
            return self.task("写出剂型。", name, made + "。")
        return f"{self.medicines[name]}：{name}，中成药，{rng.choice(['国产', '常温保存', '放在阴凉处', '盒装'])}。"

    def term(self) -> Passage | str:
        zh, en = self.rng.choice(list(self.words["terms"].items()))
        if self.rng.random() < 0.5:
            return self.task("译成英文。", zh, en + ".")
        others = self.rng.sample(list(self.words["terms"]), 2)
        return f"{zh}、{others[0]}和{others[1]}都是中医的术语。{zh}：{en}。"

    # Everyday language.

    def passage(self) -> str:
        return self.rng.choice(self.passages)

    def everyday(self) -> str:
        rng, w = self.rng, self.words
        who, place, time, does, sky = (w[k] for k in ("people", "places", "times", "activities", "weather"))
        if rng.random() < 0.5:
            who, place, time, does, sky = (w[k + "_en"] for k in ("people", "places", "times", "activities", "weather"))
            return rng.choice(
                [
                    f"{rng.choice(who)} likes to {rng.choice(does)} at {rng.choice(place)}.".capitalize(),
                    f"It was {rng.choice(sky)} {rng.choice(time)}, so {rng.choice(who)} went to {rng.choice(place)}.",
                    f"Where is {rng.choice(who)}? At {rng.choice(place)}, to {rng.choice(does)}.",
                ]
            )
        return rng.choice(
            [
                f"{rng.choice(time)}，{rng.choice(who)}去{rng.choice(place)}{rng.choice(does)}。",
                f"{rng.choice(time)}是{rng.choice(sky)}，{rng.choice(who)}没有出门，在家里{rng.choice(does)}。",
                f"{rng.choice(who)}喜欢{rng.choice(does)}，{rng.choice(who)}喜欢{rng.choice(does)}。",
            ]
        )

    def dictionary(self) -> Passage | str:
        rng, w = self.rng, self.words
        form = rng.randrange(5)
        if form == 0:
            zh, en = rng.choice(list(w["pairs"].items()))
            return self.task(*rng.choice([("译成英文。", zh, en + "."), ("译成中文。", en, zh + "。")]))
        if form == 1:
            word, opposite = rng.choice(list(w["antonyms"].items()))
            return self.task("写出反义词。", word, opposite + "。")
        if form == 2:
            word, opposite = rng.choice(list(w["antonyms_en"].items()))
            return self.task("Give the opposite.", word, opposite + ".")
        kind, members = rng.choice(list(w["kinds"].items()))
        if form == 3:
            return self.task(f"列出三种{kind}。", "", "、".join(rng.sample(members, 3)) + "。")
        return f"{rng.choice(members)}是一种{kind}。"

    def reckoning(self) -> Passage | str:
        rng = self.rng
        a, b = rng.randint(0, 20), rng.randint(0, 20)
        if rng.random() < 0.3:
            a, b = sorted((rng.randint(0, 5), rng.randint(0, 5)))
            return f"{DIGITS[a]}加{DIGITS[b]}等于{DIGITS[a + b]}。"
        if rng.random() < 0.5:
            return self.task("计算。", f"{a} + {b}", f"{a + b}")
        return f"{max(a, b)} - {min(a, b)} = {abs(a - b)}"

    def knowledge(self) -> Passage:
        question, answer = self.rng.choice(self.words["qa"])
        asked = "Answer the question." if question.isascii() else "回答问题。"
        return self.task(asked, question, answer)

    def advice(self) -> Passage:
        """A recommendation by an expert, on anything but medicine."""
        role, client, thing, cases = self.rng.choice(self.words["roles"])
        text, answer = self.rng.choice(cases)
        return self.task(f"你是一名{role}，根据{client}的描述推荐合适的{thing}。", text, f"推荐使用{answer}。")


def heldout() -> list[str]:
    """Passages from the pretraining distribution that are excluded from pretraining, to measure forgetting."""
    grammar = Grammar(random.Random(HELDOUT_SEED))
    texts = dict.fromkeys(lines("tiny_corpus/passages_heldout.txt"))
    while len(texts) < HELDOUT_SIZE:
        # Short passages recur with every seed; only longer ones can be excluded.
        if len(text := "".join(grammar.draw())) >= 24 and text not in grammar.passages:
            texts[text] = None
    return list(texts)


def stream(seed: int, early: int = 0) -> Iterator[Passage]:
    """An endless stream of pretraining passages without the held-out ones.

    Most of the first `early` passages are glossary entries.
    """
    grammar, left_out = Grammar(random.Random(seed)), set(heldout())
    for drawn in itertools.count():
        passage = grammar.draw(0.85) if drawn < early else grammar.draw()
        if "".join(passage) not in left_out:
            yield passage


def main() -> None:
    """Write the held-out passages, or print a few passages of the stream."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", type=int, metavar="N", help="print N passages and write nothing")
    show = parser.parse_args().show
    if show:
        for _, (prompt, answer) in zip(range(show), stream(seed=1), strict=False):
            print(f"{prompt}[{answer}]", end="\n---\n")
        return
    rows = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in heldout()]
    (DATA / "general" / "heldout.jsonl").write_text("".join(rows), encoding="utf-8")
    print(f"heldout.jsonl: {len(rows)} passages")


if __name__ == "__main__":
    main()
