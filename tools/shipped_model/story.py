"""The story builder and the beats that every plot shares: openings, friends, interludes, endings."""

from grammar import chance, expand, pick, tidy
from world import TRAITS


class Story:
    """Collects sentences; a plot is a function that tells itself through one of these."""

    def __init__(self, rng, env):
        self.rng, self.env, self.out = rng, env, []
        self.facts = {}      # question -> answer, for conversations about the story
        self.moral = None
        self.own_opening = False
        self.theme = None    # how someone would ask for this story: "who loses a red kite"

    def say(self, *alternatives):
        self.out.append(expand(pick(self.rng, alternatives), self.env, self.rng))

    def maybe(self, probability, *alternatives):
        if chance(self.rng, probability):
            self.say(*alternatives)

    def par(self):
        if self.out and self.out[-1] != "\n\n":
            self.out.append("\n\n")

    def set(self, **values):
        for key, value in values.items():
            self.env[key.replace("__", ".")] = value

    def choose(self, table, *keys):
        """Sets `keys` to the columns of a random row of `table`."""
        row = pick(self.rng, table)
        for key, value in zip(keys, row):
            self.env[key] = value
        return row

    def fill(self, template):
        return tidy(expand(template, self.env, self.rng))

    def text(self):
        joined = " ".join(part for part in self.out if part).replace(" \n\n ", "\n\n").replace(" \n\n", "\n\n")
        return tidy(joined)


def opening(s, classic=None):
    """Introduces the hero. classic forces (or forbids) the fairy-tale first words."""
    rng, env = s.rng, s.env
    classic = chance(rng, 0.6) if classic is None else classic
    where_human = ["a small village", "a little town", "a quiet village by the sea", "a small house near the forest", "a big city",
                   "a little house at the edge of town", "a cottage on a hill", "an old house with a red door", "a village between two hills"]
    env["where"] = [env["h.home"]] if env["animal"] else where_human
    env["once"] = ["Once upon a time", "Once upon a time", "Once upon a time", "Long ago", "Once", "A long time ago", "Many years ago"] if classic else [""]
    if classic:
        s.say("{once}, there was a {h.desc} named {h}.", "{once}, there was a {h.desc} named {h}.", "{once}, in {where}, there lived a {h.desc} named {h}.",
              "{once}, a {h.desc} named {h} lived in {where}.", "{once}, there lived a {h.desc} [called|whose name was|named] {h}.",
              "{once} there was a {h.desc}. [{H.p} name was {h}|The name of this {h.kind} was {h}|Everyone called {h.o} {h}].",
              "{once}, in {where}, there was a {h.desc} named {h}.",
              "{once}, when the world was [still young|a little quieter|full of stories], there was a {h.desc} named {h}.")
    else:
        s.say("{H} was a {h.desc} who lived in {where}.", "In {where} lived a {h.desc} named {h}.", "There was once a {h.desc} named {h}.",
              "This is the story of {h}, a {h.desc} who lived in {where}.", "Everyone in the [village|valley|neighborhood] knew {h}, the {h.desc}.",
              "{H} was a {h.desc} with a [big heart|head full of ideas|warm smile|great love for stories].",
              "{Time}, a {h.desc} named {h} [woke up|opened {h.p} eyes|looked out] and smiled.",
              "Far away, in {where}, lived a {h.desc} named {h}.", "{Time}, a {h.desc} named {h} was sitting {place.in}.", "{Time}, a {h.desc} went to {place}. {H.p} name was {h}.",
              "It was [a dark night|a cold evening|a bright morning|a windy day|a quiet afternoon], and a {h.desc} named {h} [could not keep still|looked out of the window|was wide awake].",
              "There was a {h.desc} in {where}, and {h.p} name was {h}.", "Do you know {h}? {H} is a {h.desc}, and this is {h.p} story.", "{H} the {h.kind} [woke up early|was hungry|was in a good mood|had a plan] that [day|morning].", "Deep {place.in} lived a {h.desc} named {h}.")
    s.maybe(0.75, "{H.x} was very {trait}.", "{H.x} lived [there|] with {h.fam} {place.near}.", "{H.x} loved to [play|walk|sing|dream|sit] {place.in}.",
            "Most of all, {h.x} loved {h.food}.", "{H.x} had {h.eyes} and [a kind smile|a funny laugh|a soft voice|a very good heart].",
            "Every [day|morning], {h.x} [went out to play|ran outside to see what was new|said good morning to the sun|looked for new adventures].",
            "{H.x} was known for being {trait}, and [people|everyone] liked {h.o} for it.", "{H.x} was [never bored|always busy], because there was [always something to do|so much to see] {place.in}.",
            "[The neighbors|All the others] said that {h} was the most {trait} {h.kind} they knew.",
            "What {h.x} liked best was {h.liking}.", "{H.x} liked {h.liking}, and {h.s} liked {h.food} even more.")


LIKINGS = ["listening to stories", "counting the stars", "collecting smooth stones", "singing in the rain", "watching the clouds", "making new friends",
           "climbing the old apple tree", "drawing pictures in the sand", "helping in the garden", "asking questions", "jumping over puddles",
           "picking flowers", "building little houses out of sticks", "dancing when no one was looking", "looking for treasure", "telling jokes"]


def prepare(s):
    env, rng = s.env, s.rng
    env["h.fam"] = env["h.p"] + " " + pick(rng, ["mother", "father", "grandmother", "grandfather", "aunt", "uncle", "big sister", "big brother"])
    env["h.mum"] = env["h.p"] + " " + pick(rng, ["mother", "mother", "mom", "mama"])
    env["trait"] = pick(rng, TRAITS)
    env["h.eyes"] = [pick(rng, ["bright", "big brown", "shining", "dark", "round", "sparkling", "green"]) + " eyes"]
    env["place.near"] = ["near " + env["place"], "not far from " + env["place"], "close to " + env["place"]]
    env["h.liking"] = [pick(rng, LIKINGS)]
    env["f.liking"] = [pick(rng, LIKINGS)]


def meet_friend(s):
    s.say("{H.x} had a [good|best|dear] friend, a {f.desc} named {f}.", "{H.p} best friend was {f}, a {f.desc}.",
          "[Not far away|Next door|Nearby] lived {f}, a {f.desc}, who was {h.p} best friend.",
          "{H} and {f}, a {f.desc}, were the best of friends.", "{H.x} often played with a {f.desc} named {f}.",
          "{H.x} had a friend named {f}. {F} was a {f.desc} who loved {f.liking}.")
    s.maybe(0.35, "The two [friends|of them] [did everything together|met every morning {place.in}|shared all their secrets|played until the sun went down].",
            "{H} was {trait}, and {f} was [funny|calm|wild|careful], so they [got along well|were a good pair].")


def scene(s):
    """A sentence or two of weather and place."""
    s.maybe(0.7, "{weather}")
    s.maybe(0.45, "{Place.d1}.", "{Place.d2}.", "{Place.d1}, and {place.d2}.")


INTERLUDES = [
    "On the way, {h.x} saw {place.who}. \"Good [morning|day]!\" said {h}, [and waved|with a smile|politely].",
    "[They|{H} and {f}] stopped to [drink some cool water|rest in the shade|eat a few berries|look at the clouds], [and then they went on|for just a moment].",
    "\"Look at that cloud!\" said {f}. \"It looks like [a whale|a ship|a sleeping cat|a big shoe|a dragon|a teapot]!\" {H} laughed[ and laughed|].",
    "{F} told a joke, and {h} laughed so hard that {h.s} [had to sit down|almost fell over|got the hiccups].",
    "[A butterfly|A yellow leaf|A little feather] floated by and landed on {h}'s nose. {H.x} [sneezed|giggled|stood very still until it flew away].",
    "Far away, [a bell rang|someone was singing|a dog barked], and [then it was quiet again|the sound floated over the fields].",
    "{H} hummed a little song as {h.s} went. It was a song about [the sea|a brave snail|rain and sun|coming home|a dancing bear].",
    "\"Are you hungry?\" asked {f}. \"A little,\" said {h}. So they shared {treat} and [felt much better|wiped their mouths|saved the last bit for later].",
]


def interlude(s, probability=0.35):
    if chance(s.rng, probability):
        s.say(*INTERLUDES)


def ending(s, *morals):
    """Closes the story; one of `morals` may be drawn."""
    met = any(s.env["f"] in part for part in s.out)   # has the friend come into the story at all?
    s.maybe(0.55, "From that day on, {h} and {f} [were the best of friends|were always together|never forgot that day|often laughed about it]." if met else "From that day on, {h} [was {glad}|never forgot that day|was a little wiser].",
            "That [night|evening], {h} went to bed [with a smile|feeling warm and {glad}] and [dreamed of {place}|slept very well|fell asleep at once].",
            "And [every time|whenever] {h} thought of that day, {h.s} [smiled|felt warm inside].",
            "{H} told the story to {h.fam}, [who listened with wide eyes|who was very proud of {h.o}|who gave {h.o} a big hug].",
            "The [sun|moon] [went down|came up], and [the stars came out|everything was quiet and good].",
            "When the stars came out, {h} [looked up at them|said good night to each one] and felt {glad}.")
    if morals and chance(s.rng, 0.6):
        s.moral = s.fill(pick(s.rng, morals))
        s.env["moral"] = s.moral[0].lower() + s.moral[1:]   # a full sentence, its full stop included
        s.say("[{H}|{H.x}] had learned [something important that day|a good lesson|something new]: {moral}", "And {h} never forgot that {moral}", "{Moral}",
              "So {h} learned that {moral}", "\"Remember,\" said {h.fam}, \"{moral}\"")
    s.maybe(0.4, "[And they|They all] lived happily ever after.", "The end.", "And that is the end of the story.", "And that was a very good day.",
            "And if you walk past {place} on a quiet day, you may [still hear them laugh|see them there].", "It was a day that no one would forget.")

