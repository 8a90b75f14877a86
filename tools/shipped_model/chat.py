"""Conversations: small talk, simple facts, sums, memory of what was said, requests for stories and verses, system prompts."""

from facts import (BABIES, CAN_DO, CAPITALS, COLORS, COUNTS, DAYS, EATS, HOMES, JOBS, JOKES, KIND_PLURALS, KINDS, LEGS, LOVE, MIXES, MONTHS, NUMBER_WORDS,
                   OPPOSITES, PASTS, PLURALS, RHYMES, SEASONS, SENSES, SHAPES, SIZES, SOUNDS, TOWNS, USES, WHY)
from grammar import chance, expand, pick, tidy
from plots_tale import RIDDLES
from verse import poem
from world import ANIMAL_KINDS, BOYS, GIRLS, PETS, THINGS, TOYS, invent_name, person_name

NAME = "Cairn"


def say(rng, template, **env):
    return tidy(expand(template, env, rng))


def rough(rng, text):
    """People type as they like: lower case, no full stop, a greeting or a please in front."""
    draw = rng.random()
    if draw < 0.22:
        text = text.lower()
    if rng.random() < 0.25:
        text = text.rstrip(".?!")
    if draw > 0.96:
        text = pick(rng, ["Hi! ", "Hello. ", "Please tell me: ", "I have a question. ", "Hey, ", "Ok. "]) + text
    return text


def upper_first(text):
    return text[0].upper() + text[1:]


# ---- single questions: each returns (question, answer) ----

def q_sum(rng):
    top = pick(rng, [10, 10, 20, 20, 50, 100])
    kind = rng.random()
    if kind < 0.45:
        x, y = rng.randint(0, top), rng.randint(0, top)
        asked, sign, result = pick(rng, [f"{x} + {y}", f"{x} plus {y}", f"{x}+{y}"]), f"{x} + {y}", x + y
    elif kind < 0.75:
        x, y = sorted((rng.randint(0, top), rng.randint(0, top)), reverse=True)
        asked, sign, result = pick(rng, [f"{x} - {y}", f"{x} minus {y}", f"{x}-{y}"]), f"{x} - {y}", x - y
    else:
        x, y = rng.randint(0, 10), rng.randint(0, 12)
        asked, sign, result = pick(rng, [f"{x} times {y}", f"{x} * {y}", f"{x} x {y}"]), f"{x} times {y}", x * y
    question = pick(rng, ["What is {}?", "What is {}?", "How much is {}?", "{}", "{} = ?", "Can you tell me what {} is?", "Calculate {}.", "what's {}?"]).format(asked)
    return question, pick(rng, [f"{sign} is {result}.", f"{sign} is {result}.", f"{sign} = {result}.", f"The answer is {result}.", f"That is {result}."])


def q_word_sum(rng):
    who = person_name(rng)
    thing = pick(rng, ["apples", "nuts", "coins", "books", "marbles", "cookies", "flowers", "pencils", "shells", "balloons", "stones", "cherries"])
    x, y = rng.randint(1, 12), rng.randint(1, 10)
    if chance(rng, 0.5):
        return (say(rng, f"{who} has {x} {thing} and [gets|finds|buys] {y} more. How many {thing} does {who} have [now|in total|]?"),
                say(rng, f"[{x} + {y} = {x + y}. |]{who} has {x + y} {thing}[ now|]."))
    x, y = max(x, y) + 1, min(x, y)
    return (say(rng, f"{who} has {x} {thing} and [gives away|loses|eats|sells] {y}. How many are left?").replace(" eats", " loses"),
            say(rng, f"[{x} - {y} = {x - y}. |]{x - y} {thing} are left.") if x - y != 1 else f"Only 1 of the {thing} is left.")


def q_number(rng):
    draw = rng.random()
    if draw < 0.25:
        n = rng.randint(1, 99)
        return say(rng, f"What [number |]comes after {n}?"), f"After {n} comes {n + 1}."
    if draw < 0.4:
        n = rng.randint(2, 99)
        return say(rng, f"What [number |]comes before {n}?"), f"Before {n} comes {n - 1}."
    if draw < 0.6:
        n = rng.randint(3, 20)
        return say(rng, f"[Count to|Can you count to|Please count to|Count from 1 to] {n}."), ", ".join(str(i) for i in range(1, n + 1)) + "."
    if draw < 0.7:
        n = rng.randint(3, 10)
        return f"Count down from {n}.", ", ".join(str(i) for i in range(n, 0, -1)) + ", lift off!"
    if draw < 0.85:
        x, y = rng.sample(range(1, 100), 2)
        return say(rng, f"Which is [bigger|larger|more], {x} or {y}?"), f"{max(x, y)} is bigger than {min(x, y)}."
    n = rng.randint(1, 20)
    return pick(rng, [(f"What is half of {2 * n}?", f"Half of {2 * n} is {n}."), (f"What is twice {n}?", f"Twice {n} is {2 * n}."), (f"How do you write {n} as a word?", f"{n} is written as {NUMBER_WORDS[n]}."),
                      (f"Is {n} even or odd?", f"{n} is {'even' if n % 2 == 0 else 'odd'}.")])


def q_word(rng):
    draw = rng.random()
    if draw < 0.4:
        x, y = pick(rng, OPPOSITES)
        if chance(rng, 0.3) and x not in ("old", "young", "light", "short", "find"):
            x, y = y, x
            y = next((b for a, b in OPPOSITES if a == x), y)
        return (say(rng, f"[What is the opposite of {x}?|What's the opposite of {x}?|Tell me the opposite of {x}.|What is the opposite of the word {x}?|Opposite of {x}?]"),
                say(rng, f"[The opposite of {x} is {y}.|The opposite of {x} is {y}.|{upper_first(y)}.]"))
    if draw < 0.55:
        x, y = pick(rng, PLURALS)
        return say(rng, f"What is the plural of {x}?"), f"The plural of {x} is {y}."
    if draw < 0.7:
        x, y = pick(rng, PASTS)
        return say(rng, f"What is the past [tense |form |]of {x}?").replace("past of", "past tense of"), f"The past tense of {x} is {y}."
    if draw < 0.85:
        family = pick(rng, RHYMES).split()
        x = pick(rng, family)
        others = [w for w in family if w != x]
        rng.shuffle(others)
        return (say(rng, f"[What rhymes with {x}?|Which word rhymes with {x}?|Give me a word that rhymes with {x}.|Find a rhyme for {x}.]"),
                pick(rng, [f"{upper_first(others[0])} rhymes with {x}.", f"{upper_first(others[0])} and {others[-1]} rhyme with {x}." if len(others) > 1 else f"{upper_first(others[0])} rhymes with {x}."]))
    word = pick(rng, "cat dog sun tree house apple bird fish star book moon rain bear milk lamp door hand ball king queen snow wind leaf ring boat cake".split())
    return pick(rng, [(f"How do you spell {word}?", f"{upper_first(word)} is spelled " + "-".join(word.upper()) + "."), (f"What is the first letter of {word}?", f"The first letter of {word} is {word[0].upper()}."),
                      (f"What is the last letter of {word}?", f"The last letter of {word} is {word[-1].upper()}."), (f"How many letters does the word {word} have?", f"The word {word} has {NUMBER_WORDS[len(word)]} letters.")])


def q_animal(rng):
    draw = rng.random()
    if draw < 0.25:
        x, y = pick(rng, SOUNDS)
        return (say(rng, f"[What sound does a {x} make?|What does a {x} say?|How does a {x} go?|What noise does a {x} make?]"), say(rng, f"[A {x} says {y}.|A {x} says \"{y}\".|A {x} goes {y}.]"))
    if draw < 0.42:
        x, y = pick(rng, BABIES)
        return say(rng, f"[What is a baby {x} called?|What do you call a baby {x}?|What is the name for a young {x}?]"), say(rng, f"A baby {x} is called a {y}.")
    if draw < 0.6:
        x, y = pick(rng, HOMES)
        return say(rng, f"Where does a {x} live?") if chance(rng, 0.7) else say(rng, f"Where do you find a {x}?"), say(rng, f"A {x} lives {y}.")
    if draw < 0.76:
        x, y = pick(rng, EATS)
        return say(rng, f"What does a {x} eat?") if chance(rng, 0.6) else say(rng, f"What does a {x} like to eat?"), say(rng, f"A {x} eats {y}.")
    if draw < 0.88:
        x, y = pick(rng, LEGS)
        return say(rng, f"How many legs does a {x} have?"), say(rng, f"A {x} has {y} legs.")
    verb, row = pick(rng, CAN_DO)
    animal, yes = pick(rng, row.split(",")).split()
    if yes == "yes":
        return say(rng, f"Can a {animal} {verb}?"), say(rng, f"Yes, a {animal} can {verb}.")
    return say(rng, f"Can a {animal} {verb}?"), say(rng, f"No, a {animal} cannot {verb}.")


def q_thing(rng):
    draw = rng.random()
    if draw < 0.25:
        x, y = pick(rng, COLORS)
        if x in ("sky", "sun", "sea", "night", "grass", "snow", "milk", "coal", "blood", "chocolate", "cotton", "butter", "cocoa"):
            subject = "the " + x if x in ("sky", "sun", "sea", "night") else x
        else:
            subject = "a " + x
        return say(rng, f"[What color is {subject}?|Which color is {subject}?|What is the color of {subject}?]"), say(rng, f"{upper_first(subject)} is {y}.")
    if draw < 0.35:
        x, y, z = pick(rng, MIXES)
        if chance(rng, 0.5):
            x, y = y, x
        return say(rng, f"[What color do you get when you mix {x} and {y}?|What do {x} and {y} make?|What happens if I mix {x} and {y}?]"), say(rng, f"[{upper_first(x)} and {y} make {z}.|If you mix {x} and {y}, you get {z}.]")
    if draw < 0.5:
        x, y = pick(rng, USES)
        noun = x if x in ("soap", "glasses", "scissors") else "a " + x
        verb = "are" if x in ("glasses", "scissors") else "is"
        return say(rng, f"What {verb} {noun} [used |]for?"), say(rng, f"You use {noun} to {y}.")
    if draw < 0.62:
        x, y = pick(rng, JOBS)
        if chance(rng, 0.5):
            return say(rng, f"What does a {x} do?"), say(rng, f"A {x} {y}.")
        return f"Who {y}?", say(rng, f"A {x} {y}.")
    if draw < 0.7:
        x, y = pick(rng, SENSES)
        return f"What do we use to {x}?", f"We use our {y} to {x}."
    if draw < 0.82:
        kind = pick(rng, list(KINDS))
        members = KINDS[kind].split()
        number = rng.randint(2, min(5, len(members)))
        chosen = [members[i] for i in sorted(rng.sample(range(len(members)), number))]   # in one order, so that none comes twice
        plural = KIND_PLURALS.get(kind, kind + "s")
        listed = ", ".join(chosen[:-1]) + " and " + chosen[-1]
        return (say(rng, f"[Name {NUMBER_WORDS[number]} {plural}.|Can you name {NUMBER_WORDS[number]} {plural}?|Tell me {NUMBER_WORDS[number]} {plural}.|List {number} {plural}.|Give me {NUMBER_WORDS[number]} {plural}.]"),
                say(rng, f"[{upper_first(listed)}.|{NUMBER_WORDS[number]} {plural} are {listed}.|Here are {NUMBER_WORDS[number]} {plural}: {listed}.]"))
    if draw < 0.92:
        kind, other = rng.sample(["animal", "fruit", "vegetable", "flower", "vehicle", "drink", "tool", "instrument", "insect", "bird"], 2)
        item = pick(rng, KINDS[kind].split())
        if item in KINDS[other].split() or kind in ("bird", "insect") and other == "animal":
            return q_thing(rng)
        return say(rng, f"Is a {item} a {kind} or a {other}?"), say(rng, f"A {item} is a {kind}.")
    x, y = rng.sample(range(len(SIZES)), 2)
    big, small = SIZES[max(x, y)], SIZES[min(x, y)]
    return say(rng, f"[Which is bigger, a {SIZES[x]} or a {SIZES[y]}?|What is bigger, a {SIZES[x]} or a {SIZES[y]}?]"), say(rng, f"A {big} is bigger than a {small}.")


def q_time(rng):
    draw = rng.random()
    if draw < 0.35:
        i = rng.randrange(7)
        return pick(rng, [(f"What day comes after {DAYS[i]}?", f"After {DAYS[i]} comes {DAYS[(i + 1) % 7]}."), (f"What day comes before {DAYS[i]}?", f"Before {DAYS[i]} comes {DAYS[(i - 1) % 7]}."),
                          (f"If today is {DAYS[i]}, what day is tomorrow?", f"If today is {DAYS[i]}, tomorrow is {DAYS[(i + 1) % 7]}."), (f"If today is {DAYS[i]}, what day was yesterday?", f"If today is {DAYS[i]}, yesterday was {DAYS[(i - 1) % 7]}.")])
    if draw < 0.6:
        i = rng.randrange(12)
        return pick(rng, [(f"What month comes after {MONTHS[i]}?", f"After {MONTHS[i]} comes {MONTHS[(i + 1) % 12]}."), (f"What month comes before {MONTHS[i]}?", f"Before {MONTHS[i]} comes {MONTHS[(i - 1) % 12]}.")])
    if draw < 0.7:
        i = rng.randrange(4)
        return f"What season comes after {SEASONS[i]}?", f"After {SEASONS[i]} comes {SEASONS[(i + 1) % 4]}."
    if draw < 0.78:
        return pick(rng, [("What are the days of the week?", "The days of the week are " + ", ".join(DAYS[:-1]) + " and Sunday."), ("Name the seasons.", "The seasons are spring, summer, autumn and winter."), ("What are the months of the year?", "The months are " + ", ".join(MONTHS[:-1]) + " and December."),
                          ("Say the alphabet.", "A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z.")])
    if draw < 0.85:
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        i = rng.randrange(1, 25)
        return pick(rng, [(f"What letter comes after {letters[i]}?", f"After {letters[i]} comes {letters[i + 1]}."), (f"What letter comes before {letters[i]}?", f"Before {letters[i]} comes {letters[i - 1]}.")])
    if draw < 0.9:
        x, y = pick(rng, SHAPES)
        return say(rng, f"How many sides does a {x} have?"), say(rng, f"A {x} has {y} sides.")
    asked, answer = pick(rng, COUNTS)
    return f"How many {asked}?", answer


def q_why(rng):
    asked, answer = pick(rng, WHY)
    question = upper_first(asked) + "?"
    if asked.startswith(("what is ", "why ", "how ")) and chance(rng, 0.25):
        question = pick(rng, ["Can you explain: ", "I want to know: ", "Tell me, ", "Do you know "]) + asked + "?"
    return question, answer


def q_capital(rng):
    x, y = pick(rng, CAPITALS)
    if chance(rng, 0.75):
        return say(rng, f"[What is the capital of {x}?|What's the capital of {x}?|Which city is the capital of {x}?|Capital of {x}?]"), say(rng, f"[The capital of {x} is {y}.|{y} is the capital of {x}.]")
    return say(rng, f"[Where is {y}?|In which country is {y}?]"), say(rng, f"{y} is in {x}. It is the capital[ city|].")


def q_joke(rng):
    if chance(rng, 0.55):
        x, y = pick(rng, JOKES)
        return say(rng, "[Tell me a joke.|Can you tell me a joke?|Do you know a joke?|Make me laugh.|Say something funny.|Another joke, please.]"), f"{x} {y}"
    x, y = pick(rng, RIDDLES)
    if chance(rng, 0.5):
        return x, upper_first(y) + "."
    return say(rng, "[Tell me a riddle.|Do you know a riddle?|Give me a riddle.|Ask me a riddle.]"), f"{x} ... {upper_first(y)}!"


def q_feeling(rng):
    name = person_name(rng)
    table = [
        ("[I am sad.|I feel sad today.|I'm sad.|I feel so sad.]", "[I am sorry to hear that.|I am sorry that you feel sad.] [Do you want to tell me about it?|Sometimes it helps to talk to a friend.|Would you like to hear a story?|Be kind to yourself today.]"),
        ("[I am happy!|I feel great today.|I'm so happy.|Today was a good day.]", "[That is wonderful!|I am glad to hear that!|How nice!] [What made you happy?|Enjoy it!|Your joy is catching.]"),
        ("[I am bored.|I'm bored.|What can I do? I am bored.]", "[You could read a book, draw a picture or go for a walk.|How about a story? Just ask me for one.|You could build something, bake something or call a friend.|Try to draw the silliest animal that you can think of.]"),
        ("[I am tired.|I'm so tired.]", "[Then you should rest a little.|A short nap can do wonders.|Take a break and drink some water.] [Sleep well!|Tomorrow is a new day.|]"),
        ("[I can't sleep.|I cannot sleep.]", "[Try to think of three good things from today.|Close your eyes and breathe slowly.|Imagine a quiet lake with a little boat on it.] [I can tell you a quiet story too.|Good night!|]"),
        ("[I am afraid of the dark.|I am scared.|I'm afraid.]", "[Everyone is afraid sometimes.|That is all right, everyone is afraid of something.] [A small lamp can help.|It helps to tell someone about it.|Take a deep breath. You are not alone.]"),
        ("[I am angry.|I'm so angry!]", "[Take a deep breath and count to ten.|I understand.] [It can help to go for a walk.|Do you want to tell me what happened?]"),
        ("[I am hungry.|I'm hungry.]", "[How about a sandwich or an apple?|You could make some soup.|A banana is a quick snack.]"),
        ("[Today is my birthday!|It's my birthday.]", "[Happy birthday!|Happy birthday to you!] [I hope that you have a wonderful day.|May all your wishes come true.|I hope there is cake!]"),
        ("[I had a fight with my friend.|My friend is angry with me.]", "[I am sorry to hear that.|That must feel bad.] [Maybe you can talk to your friend and say sorry.|Friends can fight and make up again. A kind word is a good start.]"),
        ("[I lost my {toy}.|I can't find my {toy}.]", "[Oh no!|I am sorry.] [Where did you last have your {toy}?|Look in the place where you last played with it.|Maybe a friend can help you look.]"),
        ("[I have a new pet.|I got a new {pet}!]", "[How nice!|That is exciting!] What is its name?"),
        ("[I won!|I won a prize!|I passed my test!]", "[Congratulations!|Well done!] [You can be proud of yourself.|I knew that you could do it.]"),
        (f"[My friend {name} is ill.|{name} is sick.]", f"[I am sorry to hear that.|Oh, I am sorry.] I hope that {name} gets well soon. [You could send a card.|A kind visit may help.|]"),
    ]
    q, a = pick(rng, table)
    env = {"toy": pick(rng, TOYS)[0], "pet": pick(rng, ["dog", "cat", "hamster", "rabbit", "bird", "fish"])}
    return say(rng, q, **env), say(rng, a, **env)


def q_self(rng, name=NAME, what="a small language model that tells stories"):
    table = [
        ("[Who are you?|What are you?|Who am I talking to?|Introduce yourself.|Tell me about yourself.]", f"[I am {name}, {what}.|My name is {name}. I am {what}.|I'm {name}, {what}.]"),
        ("[What is your name?|What's your name?|Do you have a name?|How are you called?]", f"[My name is {name}.|I am {name}.|I'm called {name}.]"),
    ]
    if name == NAME:
        table += [
            ("[What can you do?|What are you good at?|How can you help me?|Can you help me?|Help]", "I can tell [simple |]stories, [write little poems|make small rhymes], answer easy questions and do small sums. [Try asking me for a story about a fox!|Just ask me for a story.|I am small, so please keep it simple.|]"),
            ("[Are you human?|Are you a person?|Are you real?|Are you a robot?]", "[No, I am not a person. |]I am a [small |]computer program [that works with words|that writes text]."),
            ("[Who made you?|Where do you come from?|Who built you?]", "I was trained from scratch [as a part of|for] the cairn project, on stories [made by a program|written by a script] and a few old books."),
            ("[How old are you?|When is your birthday?]", "I do not have an age. I am a program, and every talk is new to me."),
            ("[Are you smart?|Are you clever?|Do you know everything?]", "I am very small, so I know only simple things. But I like stories!"),
            ("[How big are you?|How many parameters do you have?]", "I am tiny: I have about ten million parameters."),
            ("[Where do you live?|Where are you?]", "I live inside your computer."),
            ("[Do you have feelings?|Can you feel?|Do you love me?]", "I am a program, so I do not feel as you do. But I like to be helpful."),
            ("[Do you sleep?|Do you eat?|Do you have a body?|Do you dream?]", "No, I am a program. [I have no body|I only work with words]. But I can tell you a story about it!"),
            ("[What is your favorite {love}?]", "I am a program, so I have no favorite {love}. What is yours?"),
            ("[What do you like?|What is your hobby?]", "I like stories, [rhymes and riddles|especially the ones with a good ending]."),
        ]
    q, a = pick(rng, table)
    env = {"love": pick(rng, LOVE)[0]}
    return say(rng, q, **env), say(rng, a, **env)


def q_unknown(rng):
    nonsense = "".join(pick(rng, ["ba", "ko", "ri", "zan", "mel", "tor", "vi", "qua", "ple", "dro", "ski", "un"]) for _ in range(rng.randint(2, 4)))
    if chance(rng, 0.35):
        noun, quality = pick(rng, THINGS + ANIMAL_KINDS), pick(rng, ["flat", "heavy", "dangerous", "expensive", "important", "beautiful", "useful", "old", "square", "hollow", "fast", "poisonous", "better than yesterday", "made of glass"])
        if chance(rng, 0.4):
            return (say(rng, "[Do you like|Do you want|Have you got|Do you eat|Did you see] [{x}|{x}|a {n}|the {n}]?", x=pick(rng, ["pizza", "music", "school", "summer", "football", "books", "math", "ice cream", "movies", "games", "me", "chocolate", "snow", "my drawing"]), n=noun),
                    say(rng, "I am a program, so I [cannot say|have no taste of my own|do not eat, see or own things]. [What about you?|Do you?|But I like stories!|]"))
        return (say(rng, "[Is the {n} {q}?|Are {n}s {q}?|Is a {n} {q}?|Why is the {n} {q}?|Who invented the {n}?|When was the first {n} made?|How much does a {n} cost?|What is the best {n}?|Where can I buy a {n}?|How do I make a {n}?|Is it true that the {n} is {q}?|How many {n}s are there in the world?]", n=noun, q=quality),
                say(rng, "[I am not sure.|I do not know.|That I do not know.|I am sorry, I do not know that.] [I am a very small model.|I only know simple things.|I am small and know only a little.|Maybe someone else can tell you.] [Would you like a story about a {n}?|I can tell you a story about a {n}.|]", n=noun))
    asked = say(rng, "[What will the weather be tomorrow?|What is the stock price of {c}?|Write a program in {lang}.|Who won the game yesterday?|What time is it?|What is the news today?|Translate this into {tongue}: good morning.|Explain quantum {sci}.|What is {nonsense}?|Who is {c} {nonsense}?|Solve the equation x^2 + {n}x = {m}.|What is the square root of {m}?|Can you book a flight to {town}?|How do I fix my {dev}?|What medicine should I take?|Write an essay about {topic}.|Summarize the history of {topic}.|Give me a recipe for {nonsense}.|What year did {c} become president?|Draw me a picture.|Play some music.|Search the internet for {nonsense}.|How does {dev} software work?|Compare {topic} and {sci}.|What do you think about {topic}?|Define {nonsense}.|Debug this code for me.]",
                c=pick(rng, ["Apple", "Miller", "Smith", "Garcia", "Novak", "Tanaka"]), lang=pick(rng, ["Python", "C++", "Java", "Rust"]), tongue=pick(rng, ["French", "German", "Spanish", "Japanese", "Latin"]), sci=pick(rng, ["physics", "mechanics", "computing", "chemistry"]), nonsense=nonsense, n=str(rng.randint(2, 9)), m=str(rng.randint(11, 999)), town=pick(rng, TOWNS),
                dev=pick(rng, ["phone", "car", "printer", "computer", "washing machine"]), topic=pick(rng, ["politics", "the economy", "philosophy", "the Roman empire", "war", "law", "religion", "machine learning", "medicine"]))
    return asked, say(rng, "[I am sorry, but|Sorry,|I am afraid that] [I do not know that|that is too hard for me|I cannot do that]. [I am a very small model.|I only know simple things.|I am small and know only a little.] [Would you like a story?|I can tell you a story instead.|You could ask me for a story or a riddle.|]")


def q_write(rng):
    draw = rng.random()
    if draw < 0.5:
        topic, text = poem(rng)
        return say(rng, f"[Write a poem about {topic}.|Write me a short poem about {topic}.|Can you write a poem about {topic}?|Make a rhyme about {topic}.|A poem about {topic}, please.|I want a little poem about {topic}.]"), text
    if draw < 0.7:
        name, other = rng.sample(GIRLS + BOYS, 2)
        gift = pick(rng, ["the book", "the lovely flowers", "the cake", "your help", "the nice evening", "the warm scarf", "the letter"])
        return pick(rng, [(f"Write a thank-you note to {name} for {gift}.", say(rng, f"Dear {name},\n\nThank you so much for {gift}. [It made me very happy.|You are a good friend.|I will never forget it.] [I hope to see you soon.|All the best to you.]\n\n[With love|Yours|Warm wishes]")),
                          (f"Write a birthday card for {name}.", say(rng, f"Dear {name},\n\nHappy birthday! [May your day be full of joy and cake.|I wish you a year full of laughter.|May all your wishes come true.] [You are a wonderful friend.|Have a great day!]\n\n[With love|Your friend|Warm wishes]")),
                          (f"Write a short letter to my friend {name}.", say(rng, f"Dear {name},\n\nHow are you? [I am well.|I am fine.] [The sun is shining here, and I think of you.|Yesterday I went for a long walk, and I saw a fox.|It has been raining, so I read a good book.] [Please write back soon.|I hope that we meet again soon.]\n\nYour friend"))])
    if draw < 0.9:
        word = pick(rng, "cat dog moon river happy garden tree bread winter friend song boat bird apple window star rain book snow bear flower morning".split())
        sentences = {"cat": "The cat sleeps on the warm chair.", "dog": "The dog runs after the ball.", "moon": "The moon shines over the quiet town.", "river": "The river flows down to the sea.", "happy": "The happy children sing a song.", "garden": "In the garden, the roses are in bloom.", "tree": "A bird sits in the old tree.", "bread": "Fresh bread smells wonderful.", "winter": "In winter, snow covers the hills.",
                     "friend": "A good friend listens to you.", "song": "She sang a song about the sea.", "boat": "The little boat rocks on the water.", "bird": "The bird builds a nest.", "apple": "He ate a red apple.", "window": "Rain taps on the window.", "star": "One star shines brighter than the others.", "rain": "The rain makes the flowers grow.", "book": "I read a good book every week.", "snow": "The snow fell all night.",
                     "bear": "The bear looks for honey.", "flower": "A bee sits on the flower.", "morning": "Every morning, the rooster crows."}
        return say(rng, f"[Make a sentence with the word {word}.|Use {word} in a sentence.|Write a sentence with {word}.|Give me a sentence about {word}.]".replace("about " + word, "with the word " + word)), sentences[word]
    word = pick(rng, ["Say hello", "Say good night", "Say something nice", "Wish me luck", "Say goodbye"])
    return word + ".", {"Say hello": "Hello!", "Say good night": "Good night! Sleep well and have sweet dreams.", "Say something nice": "I am glad that you are here.", "Wish me luck": "Good luck! You can do it.", "Say goodbye": "Goodbye! Take care."}[word]


def greeting(rng):
    q = pick(rng, ["Hello", "Hello!", "Hi", "Hi!", "Hey", "Hi there", "Good morning", "Good evening!", "Good afternoon", "Hello, how are you?", "How are you?", "How are you today?", "Hi, how are you?", "What's up?", "Nice to meet you.", "Hello there!", "Good day!"])
    if "how are you" in q.lower():
        return q, say(rng, "[Hello! |]I am [fine|well|very well], thank you. [How are you?|And you?|How can I help you?|What would you like to talk about?]")
    if q.startswith("What's"):
        return q, say(rng, "Not much. [What is new with you?|Would you like to hear a story?]")
    if q.startswith("Nice"):
        return q, say(rng, "Nice to meet you too! [What is your name?|How can I help you?]")
    if q.startswith("Good "):
        first = q.rstrip("!") + "!"
        return q, say(rng, first + " [How can I help you?|How are you today?|What can I do for you?|Would you like a story?]")
    return q, say(rng, "[Hello!|Hi!|Hello there!|Hi there!] [How can I help you?|How are you?|What would you like to talk about?|What can I do for you?|Would you like to hear a story?|Nice to meet you.]")


def farewell(rng):
    q, a = pick(rng, [("[Thank you!|Thanks.|Thank you very much.|Thanks a lot!|Thank you, that was nice.]", "[You are welcome!|You're welcome.|My pleasure.|I am glad that I could help.] [Is there anything else?|Have a nice day!|]"), ("[Goodbye!|Bye|Bye!|See you!|See you later.|Good night!|I have to go.]", "[Goodbye!|Bye! Take care.|See you soon!|Goodbye, and have a nice day!|It was nice to talk to you. Goodbye!]"),
                      ("[That was great!|I like that.|Very good!|Nice!|Wow!|Cool]", "[Thank you!|I am glad that you like it.|That makes me happy.] [Would you like another one?|What shall we do next?|]"), ("[Ok|OK.|I see.|Yes|Yes.|Okay]", "[Good.|All right.|Very well.] [What would you like to do now?|What else can I do for you?|Shall I tell you a story?]"), ("[No|No, thank you.|Nope]", "[All right.|No problem.] [Just tell me if you need anything.|What would you like instead?]")])
    return say(rng, q), say(rng, a)


QUESTIONS = ((q_sum, 16), (q_word_sum, 5), (q_number, 7), (q_word, 12), (q_animal, 12), (q_thing, 12), (q_time, 9), (q_why, 12), (q_capital, 7), (q_joke, 7), (q_feeling, 8), (q_self, 10), (q_unknown, 9), (q_write, 10))
_TOTAL = sum(weight for _, weight in QUESTIONS)


def any_question(rng):
    draw = rng.random() * _TOTAL
    for ask, weight in QUESTIONS:
        draw -= weight
        if draw < 0:
            return ask(rng)
    return q_sum(rng)


# ---- memory of what the user said: each returns (statement, reply, question, answer) ----

def memory_item(rng, used):
    kinds = [k for k in ("name", "name", "love", "pet", "age", "town", "sibling", "thing", "plan") if k not in used] or ["love2"]
    kind = pick(rng, kinds)
    used.add(kind)
    if kind == "name":
        name = person_name(rng) if chance(rng, 0.6) else invent_name(rng)
        return (say(rng, f"[My name is {name}.|I am {name}.|Hi, I'm {name}.|Hello, my name is {name}.|You can call me {name}.]"),
                say(rng, f"[Nice to meet you, {name}!|Hello, {name}!|Hi {name}! Nice to meet you.|Hello {name}, how are you?] [How can I help you?|What would you like to talk about?|]"),
                say(rng, "[What is my name?|Do you remember my name?|What's my name?|Who am I?|Do you know my name?]"), say(rng, f"[Your name is {name}.|You are {name}.|Yes, your name is {name}.|You told me that your name is {name}.]").replace("Yes, y", "Y" if chance(rng, 0.7) else "Yes, y"))
    if kind in ("love", "love2"):
        what, choices = pick(rng, LOVE)
        value = pick(rng, choices)
        return (say(rng, f"[My favorite {what} is {value}.|I have a favorite {what}: {value}.|The {what} that I like best is {value}.]"),
                say(rng, f"[{upper_first(value)}! That is a good choice.|I like that.|{upper_first(value)} is a wonderful {what}.|Good to know!]") if what not in ("fruit", "food") else say(rng, "[That sounds tasty!|Good choice!|Yum!]"),
                say(rng, f"[What is my favorite {what}?|Do you remember my favorite {what}?|Which {what} do I like best?]"), say(rng, f"Your favorite {what} is {value}."))
    if kind == "pet":
        pet, name = pick(rng, ["dog", "cat", "rabbit", "hamster", "bird", "horse", "turtle"]), pick(rng, PETS) if chance(rng, 0.5) else invent_name(rng)
        return (say(rng, f"[I have a {pet} named {name}.|My {pet} is called {name}.|I have a {pet}. Its name is {name}.]"), say(rng, f"[{name} is a lovely name for a {pet}.|How nice! I am sure that {name} is a good {pet}.|What a nice name!|Say hello to {name} from me.]"),
                say(rng, f"[What is the name of my {pet}?|What is my {pet} called?|Do you remember the name of my {pet}?]"), say(rng, f"[Your {pet} is called {name}.|The name of your {pet} is {name}.]"))
    if kind == "age":
        age = rng.randint(5, 60)
        return (say(rng, f"I am {age} years old."), say(rng, f"[{age} is a good age!|That is a fine age.|Good to know.]"), say(rng, "[How old am I?|Do you remember my age?|What is my age?]"), f"You are {age} years old.")
    if kind == "town":
        town = pick(rng, TOWNS) if chance(rng, 0.7) else invent_name(rng)
        return (say(rng, f"[I live in {town}.|I come from {town}.|I am from {town}.]"), say(rng, f"[{town} is a great city.|I have heard of {town}.|{town} must be nice.]"), say(rng, "[Where do I live?|Do you remember where I am from?|Which city am I from?]"), say(rng, f"[You are from {town}.|You told me that you are from {town}.]"))
    if kind == "sibling":
        who, name = pick(rng, [("sister", person_name(rng, "f")), ("brother", person_name(rng, "m")), ("friend", person_name(rng)), ("teacher", person_name(rng)), ("mother", person_name(rng, "f")), ("father", person_name(rng, "m"))])
        return (say(rng, f"[My {who} is called {name}.|I have a {who} named {name}.|My {who}'s name is {name}.]"), say(rng, f"[{name} is a nice name.|I am sure that {name} is very kind.|Say hello to {name}!]"), say(rng, f"What is the name of my {who}?"), f"Your {who} is called {name}.")
    if kind == "thing":
        thing, place = pick(rng, TOYS)[0], pick(rng, ["under the bed", "in the kitchen", "behind the door", "on the table", "in the garden", "in the blue box", "on the roof", "next to the window"])
        return (say(rng, f"[I put my {thing} {place}.|Remember this: my {thing} is {place}.|My {thing} is {place}.]"), say(rng, f"[All right, I will remember that.|Good, your {thing} is {place}.|I will keep that in mind.]"), say(rng, f"[Where is my {thing}?|Do you remember where my {thing} is?|Where did I put my {thing}?]"), f"Your {thing} is {place}.")
    day, plan = pick(rng, DAYS), pick(rng, ["visit my grandmother", "go to the zoo", "bake a cake", "play football", "go swimming", "meet my friend", "go to the market"])
    mine, yours = plan, plan.replace("my ", "your ")
    return (say(rng, f"On {day} I will {mine}."), say(rng, "[That sounds nice!|Have fun!|That will be lovely.|How nice!]"), say(rng, f"[What will I do on {day}?|What is my plan for {day}?]"), f"On {day} you will {yours}.")


# ---- story requests ----

OPENERS = ("Once upon a time", "Once upon a time", "Once upon a time", "Once upon a time,", "Once upon a time...", "Once upon a time, there was", "Once upon a time there was", "once upon a time", "Long ago", "Once")


def story_request(rng, teller):
    """teller(rng, want) -> Story. Returns (request, story)."""
    draw = rng.random()
    if draw < 0.22:
        q = pick(rng, OPENERS)
        story = teller(rng, {"classic": "Once upon a time" if q.lower().startswith("once upon") else q.strip(",.")})
        if rng.random() < 0.45 and q.lower().startswith("once upon"):
            words = story.text().split(" ")
            q = " ".join(words[:rng.randint(4, 14)]).split("\n")[0]
        return q, story
    if draw < 0.4:
        return say(rng, "[Tell me a story.|Can you tell me a story?|Please tell me a story.|Tell me a bedtime story.|I want to hear a story.|Write a story.|Write a short story.|A story, please.|Tell me a nice story.|Do you know a story?|tell me another story|Make up a story.|Read me a story.|story]"), teller(rng, {})
    want = {"kind": pick(rng, THINGS) if rng.random() < 0.2 else pick(rng, ANIMAL_KINDS + ["girl", "boy"] * 6)}
    who = expand(f"[a|a|a little|a brave|a friendly] {want['kind']}", {}, rng)
    if rng.random() < 0.5:
        gender = {"girl": "f", "boy": "m"}.get(want["kind"]) or pick(rng, "fm")
        want["gender"] = gender
        want["name"] = person_name(rng, gender) if want["kind"] in ("girl", "boy") or rng.random() < 0.6 else pick(rng, PETS)
        who += pick(rng, [" named ", " called ", " named "]) + want["name"]
    want["own_opening"] = False
    story = teller(rng, want)
    extra = ""
    if story.theme and rng.random() < 0.55:
        theme = story.theme[0].lower() + story.theme[1:]
        extra = " " + theme if theme.startswith("who ") else ""
        if not extra:
            who = theme.replace("about ", "", 1) + " with " + who
    return say(rng, f"[Tell me a story about {who}{extra}.|Write a story about {who}{extra}.|Can you tell me a story about {who}{extra}?|Please write a short story about {who}{extra}.|A story about {who}{extra}, please.|I want a story about {who}{extra}.|Make up a story about {who}{extra}.|Tell me about {who}{extra}.]"), story


def conversation(rng, teller):
    """One conversation as a list of (role, text)."""
    turns = []
    name, what = NAME, "a small language model that tells stories"
    draw = rng.random()
    style = None
    if draw < 0.12:
        turns.append(("system", pick(rng, ["You are a helpful assistant.", "You are Cairn, a friendly storyteller.", "You are Cairn, a small and friendly assistant.", "Be kind and helpful.", "You are a friendly assistant that tells stories.", "You are a helpful and friendly chatbot.", "Answer simply."])))
    elif draw < 0.2:
        name = person_name(rng) if rng.random() < 0.6 else pick(rng, PETS)
        what = expand("a [friendly|wise|cheerful|funny|kind|brave|clever|curious|sleepy] [robot|dragon|wizard|teacher|pirate|cat|owl|bear|king|queen|gardener|baker|captain|fairy|knight|{thing}|{animal}]", {"thing": pick(rng, THINGS), "animal": pick(rng, ANIMAL_KINDS)}, rng)
        turns.append(("system", say(rng, f"[You are {name}, {what}.|You are {what} named {name}.|Your name is {name}. You are {what}.][ Stay in character.| Answer as {name}.|]")))
    elif draw < 0.3:
        style = pick(rng, ["caps", "end", "start", "short"])
        phrase = pick(rng, ["Have a nice day!", "Meow!", "Ahoy!", "Good luck!", "Over and out.", "Stay curious!", "And that is that.", "Arr!", "Beep boop."])
        turns.append(("system", {"caps": pick(rng, ["Answer in capital letters.", "Always write in capital letters.", "Use only capital letters."]), "end": pick(rng, ["Always end your answer with \"{}\"", "End every answer with: {}", "Finish each answer with \"{}\""]).format(phrase), "start": pick(rng, ["Start every answer with \"{}\"", "Begin each answer with: {}"]).format(phrase), "short": pick(rng, ["Answer with one word.", "Answer in one word only.", "Use only one word."])}[style]))

    def styled(answer):
        if style == "caps":
            return answer.upper()
        if style == "end":
            return answer + " " + phrase
        if style == "start":
            return phrase + " " + answer
        return answer

    def add(pair):
        turns.append(("user", rough(rng, pair[0])))
        turns.append(("assistant", styled(pair[1])))

    if style == "short":
        for _ in range(rng.randint(1, 3)):
            x, y = pick(rng, [pick(rng, OPPOSITES), None, pick(rng, SOUNDS), pick(rng, CAPITALS)]) or ("", "")
            if (x, y) in OPPOSITES:
                add((f"What is the opposite of {x}?", upper_first(y) + "."))
            elif (x, y) in SOUNDS:
                add((say(rng, f"What does a {x} say?"), upper_first(y) + "."))
            elif (x, y) in CAPITALS:
                add((f"What is the capital of {x}?", y + "."))
            else:
                i = rng.randrange(7)
                add((f"What day comes after {DAYS[i]}?", DAYS[(i + 1) % 7] + "."))
        return turns

    if rng.random() < 0.25:
        add(greeting(rng))
    if name != NAME:
        for _ in range(rng.randint(1, 2)):
            add(q_self(rng, name, what))
    for _ in range(pick(rng, (1, 1, 1, 1, 1, 1, 2, 2, 3))):
        plan = rng.random()
        if plan < 0.36:
            for _ in range(pick(rng, (1, 1, 2, 2, 3, 4))):
                add(any_question(rng))
        elif plan < 0.58:
            used, items = set(), []
            for _ in range(pick(rng, (1, 1, 2, 3))):
                statement, reply, question, answer = memory_item(rng, used)
                add((statement, reply))
                items.append((question, answer))
                for _ in range(pick(rng, (0, 0, 1, 1, 2))):
                    add(any_question(rng))
            rng.shuffle(items)
            for item in items:
                add(item)
        else:
            question, story = story_request(rng, teller)
            turns.append(("user", rough(rng, question) if not question.lower().startswith("once") else question))
            turns.append(("assistant", styled(story.text())))
            if story.facts and rng.random() < 0.5:
                facts = list(story.facts.items())
                if not story.own_opening:
                    facts.append((pick(rng, ["Who is the story about?", "Who was the hero of the story?", "What was the name of the {h.kind}?", "Who is {h}?"]), "{h.about}"))
                rng.shuffle(facts)
                for q, a in facts[:rng.randint(1, 2)]:
                    if a == "{h.about}":
                        a = pick(rng, ["The story is about {h}, a {h.desc}.", "It is about {h}, a {h.desc}."]) if not q.startswith(("What", "Who is {h}")) else ("The {h.kind} was called {h}." if q.startswith("What") else "{H} is a {h.desc}.")
                    add((story.fill(q), story.fill(a)))
                if story.moral and rng.random() < 0.4:
                    add((pick(rng, ["What is the moral of the story?", "What can we learn from the story?"]), story.moral))
            elif rng.random() < 0.3:
                add(any_question(rng))
    if rng.random() < 0.25:
        add(farewell(rng))
    return turns
