"""Who, where and what: the tables that stories are cast from, and the casting itself."""

from grammar import chance, pick, pick_front

GIRLS = ("""Lily Mia Anna Emma Zoe Ella Ruby Rosa Nora Clara Ivy Lucy Maya Sara Tina Molly Daisy Grace Hanna Lena Nina Amy Kate
         Sophie Alice Jane Mary Olga Petra Freya Wendy Bella Elsa June Hazel Iris Julia Leah Luna Olivia Poppy Rose Stella Tess
         Vera Willa Kim Barbara Sarah Linda Susan Karen Lisa Nancy Betty Helen Sandra Donna Carol Ruth Sharon Laura Emily Rebecca Cynthia Amanda Melissa Deborah Rachel
         Catherine Maria Diane Virginia Julie Joyce Victoria Lauren Christina Joan Evelyn Judith Megan Andrea Hannah Jacqueline Martha Gloria Teresa Ann Madison Frances Kathryn Janice Jean Abigail Sofia
         Isabella Charlotte Amelia Harper Scarlett Chloe Penelope Layla Riley Violet Aurora Amina Priya Mei Yuki Fatima Aisha Carmen Ines Lucia Marta Noor Sana Tara Uma Zara Greta Heidi Ada Edith""").split()
BOYS = ("""Tom Ben Max Sam Tim Leo Jack Finn Noah Oscar Henry Peter Luke Adam Paul Mark Eric Nils Otto Felix Hugo Jonas Karl Oliver
        Theo Toby Walter Will Alex Billy Charlie Danny Eddie Fred George Harry Isaac James Kevin Liam Milo Nathan Owen Quinn
        Robin Simon Victor Michael Robert David William Richard Joseph Thomas Christopher Daniel Matthew Anthony Donald Steven Andrew Kenneth Joshua Brian Ronald Timothy
         Jason Edward Jeffrey Ryan Jacob Gary Nicholas Jonathan Stephen Larry Justin Scott Brandon Benjamin Gregory Frank Raymond Patrick Dennis Jerry Tyler Aaron Jose Douglas Zorro Zachary Kyle Ethan
         Jeremy Keith Roger Terry Sean Austin Carl Arthur Dylan Jesse Jordan Bryan Bruce Gabriel Logan Mason Elijah Lucas Aiden Caleb Arjun Omar Ali Hassan Kofi Kenji Wei Diego Mateo Pablo Rafael Ivan Yusuf Samir Tariq Anton Emil""").split()
PETS = ("Pip Bramble Clover Dusty Fern Hopper Juniper Maple Nibbles Oakley Pebble Poppy Rusty Scout Thistle Tumble Willow Whiskers "
        "Acorn Biscuit Bubbles Button Chestnut Cinnamon Cocoa Copper Cricket Dandelion Domino Fidget Flick Flora Fuzzy Ginger "
        "Hazel Honey Jasper Marble Mimi Mocha Muffin Nutmeg Olive Patch Peanut Pepper Pickle Puddle Pumpkin Rolo Sandy Shadow "
        "Smudge Snowy Sparky Spot Star Sunny Tango Teddy Toffee Twig Velvet Waffles Wiggles Zippy Barley Basil Blossom").split()

# kind; colours; where it lives; what it likes to eat; how it moves; what its limbs are called; sizes; what it is good at
ANIMALS = [row.split(";") for row in """\
rabbit;brown,white,gray;a burrow under the hill;carrots;hopped;paw;little,small,tiny;running fast
fox;red,orange;a den by the old oak;berries;trotted;paw;little,young,clever;thinking of clever plans
bear;brown,black;a cave in the hills;honey;walked;paw;big,young,strong;lifting heavy things
mouse;gray,brown,white;a hole under the barn;cheese;scurried;paw;tiny,little,small;squeezing through small gaps
cat;black,white,orange,gray;a cozy house at the end of the lane;fish;crept;paw;little,fluffy,young;climbing trees
dog;brown,spotted,white,black;a kennel beside the red barn;bones;ran;paw;little,big,young;following smells
owl;brown,white,gray;a hollow tree;nuts and seeds;flew;wing;wise,old,little;seeing in the dark
duck;yellow,white;a nest by the pond;bread crumbs;waddled;wing;little,young,cheerful;swimming
frog;green;a lily pad on the pond;crunchy seeds;jumped;foot;little,green,cheerful;jumping high
hedgehog;brown;a pile of dry leaves;apples;shuffled;paw;little,shy,small;rolling into a ball
squirrel;red,gray;a nest high in an oak;nuts;scampered;paw;little,quick,young;climbing trees
turtle;green;a quiet spot by the river;lettuce;crawled;foot;slow,old,little;being patient
elephant;gray;a green valley;bananas;walked;foot;big,young,gentle;reaching high things
lion;golden;a warm rock on the plain;bread and milk;strode;paw;big,proud,young;roaring loudly
monkey;brown;a tall fig tree;bananas;swung;hand;little,cheeky,young;swinging from branches
pig;pink;a pen behind the barn;corn;trotted;foot;little,round,pink;finding things in the mud
sheep;white,black;a green meadow;sweet grass;trotted;foot;little,woolly,gentle;staying warm
horse;brown,white,black;a stable on the farm;oats;galloped;foot;big,young,strong;running fast
goat;white,gray;a rocky hill;thistles;climbed;foot;little,stubborn,young;climbing rocks
hen;white,brown;a coop on the farm;corn;strutted;wing;little,busy,plump;finding seeds
crow;black;a nest in the tall pine;shiny red berries;flew;wing;clever,young,black;spotting shiny things
sparrow;brown;a nest under the roof;seeds;flew;wing;little,tiny,brown;flying quickly
penguin;black and white;an icy shore;fish;waddled;wing;little,round,young;sliding on ice
otter;brown;a den by the river;fish;swam;paw;little,playful,young;swimming
badger;gray;a deep burrow;roots and berries;trotted;paw;old,grumpy,strong;digging holes
mole;black;a tunnel under the garden;roots;crawled;paw;little,shy,small;digging tunnels
deer;brown;a quiet glade;leaves and grass;ran;foot;young,gentle,shy;running fast
wolf;gray,white;a den in the dark forest;soup;trotted;paw;big,lonely,young;hearing far sounds
kangaroo;brown;a dry plain;grass;hopped;foot;young,strong,bouncy;jumping high
panda;black and white;a bamboo grove;bamboo;rolled;paw;round,young,sleepy;climbing bamboo
koala;gray;a tall gum tree;leaves;climbed;paw;little,sleepy,soft;holding on tight
giraffe;yellow;a grove of tall trees;leaves;walked;foot;tall,young,gentle;reaching high things
beaver;brown;a lodge in the stream;bark;swam;paw;busy,little,strong;building dams
snail;brown;a flower pot in the garden;lettuce;crawled;foot;tiny,slow,little;being patient
bee;yellow;a hive in the apple tree;honey;flew;wing;tiny,busy,little;finding flowers
donkey;gray;a stable near the mill;hay;walked;foot;little,stubborn,old;carrying heavy things
parrot;green,red;a palm tree;fruit;flew;wing;bright,noisy,clever;repeating words
raccoon;gray;a hollow log;corn;crept;paw;sneaky,little,young;opening boxes
swan;white;a still lake;water plants;glided;wing;graceful,young,white;swimming
lamb;white;a green meadow;clover;skipped;foot;little,woolly,soft;jumping over stones
""".splitlines()]
# Heroes of fairy tales, in the same columns; these kinds have a fixed gender where one is named.
TALE_HEROES = [row.split(";") for row in """\
dragon;green,red,blue;a cave in the mountain;hot soup;flew;claw;little,young,friendly;breathing fire
robot;silver,gray,blue;a workshop full of tools;oil cakes;rolled;hand;little,small,clever;counting very fast
princess;;a castle with tall towers;strawberry cake;walked;hand;young,little,brave;asking clever questions
prince;;a castle with tall towers;fresh bread;walked;hand;young,little,brave;riding horses
king;;a great stone castle;roast potatoes;strode;hand;old,wise,good;giving good advice
queen;;a great stone castle;honey cake;walked;hand;wise,kind,good;giving good advice
knight;;an old castle on a hill;apple pie;rode;hand;young,brave,tired;being brave
wizard;;a tower full of books;mushroom soup;walked;hand;old,young,funny;making small magic
witch;;a crooked house in the forest;pumpkin soup;flew;hand;young,old,kind;mixing strange drinks
pirate;;a ship with a red sail;fish soup;marched;hand;brave,old,young;reading maps
fairy;;a bell flower in the garden;drops of honey;flew;hand;tiny,little,bright;making things glow
unicorn;white,silver;a hidden valley;sweet clover;galloped;foot;young,gentle,shy;running like the wind
giant;;a castle above the clouds;a whole pot of soup;walked;hand;gentle,young,lonely;lifting heavy things
mermaid;;a palace under the sea;sea grapes;swam;hand;young,little,curious;singing
ghost;white;an old tower;nothing at all, but the smell of pancakes;floated;hand;little,shy,friendly;walking through walls
dinosaur;green,brown;a valley of giant ferns;leaves;stomped;foot;little,big,young;stomping loudly
farmer;;a farm by the river;bread and cheese;walked;hand;old,young,busy;growing things
baker;;a bakery that smelled of cinnamon;fresh rolls;walked;hand;old,young,round;baking bread
teacher;;a house beside the school;tea and cookies;walked;hand;young,old,patient;explaining things
sailor;;a small boat in the harbor;fish and potatoes;walked;hand;old,young,brave;tying knots
astronaut;;a little rocket;space pudding;floated;hand;young,brave,curious;finding the way among the stars
fisherman;;a hut by the sea;fish soup;rowed;hand;old,poor,patient;waiting quietly
tiger;striped;a jungle by the river;berries and milk;crept;paw;young,little,proud;jumping far
whale;blue,gray;the deep blue sea;tiny sea animals;swam;fin;big,gentle,young;singing under water
dolphin;gray;a warm bay;fish;swam;fin;young,playful,clever;jumping over the waves
zebra;striped;a wide plain;grass;galloped;foot;young,little,striped;running in zigzags
cow;brown,white,spotted;a barn on the farm;fresh grass;walked;foot;gentle,young,brown;giving milk
crocodile;green;a slow brown river;water melons;crawled;foot;young,shy,toothless;swimming quietly
snowman;white;a snowy garden;ice cream;slid;arm;little,round,friendly;staying cool
""".splitlines()]
ANIMALS += TALE_HEROES
GENDERS = {"princess": "f", "queen": "f", "witch": "f", "fairy": "f", "mermaid": "f", "cow": "f", "hen": "f", "prince": "m", "king": "m", "knight": "m", "wizard": "m", "fisherman": "m", "giant": "m"}
# Anything can be a hero when someone asks for it.
THINGS = ("toaster cloud teapot lamp tree train car boat pumpkin potato sock shoe chair clock star pencil kettle bus tractor plane rocket alien monster mushroom flower cactus crab shark octopus camel snake spider ant "
          "ladybug worm bat goose turkey rooster hamster rat eagle seagull butterfly dragonfly caterpillar beetle moth seal walrus moose lizard toad peacock pigeon rhino hippo cheetah leopard llama alpaca yak bull pony foal puppy kitten "
          "piglet calf chick duckling doctor nurse gardener painter dancer singer clown shepherd hunter miller tailor cook captain detective inventor soldier explorer ninja vampire zombie elf dwarf gnome troll goblin genie angel "
          "scarecrow puppet doll balloon kite cookie carrot tomato onion pancake cupcake snowflake raindrop river mountain stone leaf seed acorn book violin drum bell key broom bucket bicycle truck ship submarine spaceship computer "
          "telephone camera umbrella hat scarf mitten button blanket pillow candle mirror window door house lighthouse windmill bridge castle moon sun planet comet baby grandmother grandfather student friend neighbor poet scientist").split()
ANIMAL_KINDS = [row[0] for row in ANIMALS]

_SYLLABLES = ("ba be bi bo da de di do fa fi ga go ha ho ja jo ka ki ko la le li lo lu ma me mi mo mu na ne ni no nu pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa wi ya yo za ze zi zo zu "
              "bar bel bran cal chi cor dan del dor el er fen gar hal han jan kel kor lan len lin lor mar mel min mor nel nor or pel quin ran rol sal sam shi tan tel thor tor tru ul val van vel wen yan zan zel").split()
_ENDS = "a o i y in an en on er el ie us is ek ar ia ina etta old bert mund win ley ton son dra la na ra ko mo ro".split()


def invent_name(rng):
    """A name that nobody has: the model must learn to carry it along rather than to know it."""
    name = "".join(pick(rng, _SYLLABLES) for _ in range(pick(rng, (1, 1, 2, 2)))) + (pick(rng, _ENDS) if chance(rng, 0.7) else "")
    return name.capitalize() if len(name) > 2 else name.capitalize() + pick(rng, ["na", "lo", "rik", "tta"])


def person_name(rng, gender=None, invented=0.35):
    """A name as someone may type it: any of the list, or one that nobody has."""
    if chance(rng, invented):
        return invent_name(rng)
    return pick(rng, GIRLS if (gender or pick(rng, "fm")) == "f" else BOYS)


SHARE = {"h": 0, "f": 1}   # hero, friend; everyone else has the third share


def story_name(rng, gender, slot, pet=False):
    """A name that the story chooses itself. The first of a list come up most, so that the likeliest name is clearly likelier than the rest; and
    hero, friend and others have names of their own, so that greedy decoding does not call the hero and the friend by the same likeliest name."""
    names = PETS if pet else GIRLS if gender == "f" else BOYS
    return invent_name(rng) if chance(rng, 0.06) else pick_front(rng, names[SHARE.get(slot, 2)::3])


def thing_row(rng, kind):
    return [kind, pick(rng, ["red", "blue", "green", "yellow", "old", "shiny", "brown"]), pick(rng, ["a quiet corner near the river", "a small house near the forest", "a little town", "a garden behind the mill", "a village by the sea", "a land far away"]), pick(rng, TREATS), "went", "hand",
            "little,young,small,friendly,old", pick(rng, ["telling stories", "finding lost things", "being patient", "making others laugh", "keeping secrets", "solving puzzles"])]

TRAITS = ["kind", "brave", "curious", "clever", "gentle", "cheerful", "shy", "patient", "playful", "honest", "helpful", "careful",
          "quiet", "friendly", "hopeful", "thoughtful", "stubborn", "silly", "lively", "dreamy", "hardworking", "adventurous"]

# name; where one is; a detail; another detail; a creature or person one might see there
PLACES = [row.split(";") for row in """\
the forest;in the forest;the leaves whispered in the wind;sunlight fell in golden spots on the moss;a woodpecker
the meadow;in the meadow;the grass was tall and soft;yellow flowers nodded in the breeze;a butterfly
the beach;on the beach;the waves rolled in and out;the sand was warm under the sun;a crab
the park;in the park;children laughed on the swings;the fountain sparkled in the light;a pigeon
the river;by the river;the water sang over the stones;tall reeds grew along the bank;a kingfisher
the farm;on the farm;the hay smelled sweet;the old windmill turned slowly;a rooster
the village square;in the village square;people talked and laughed;the clock tower rang the hour;a gray pigeon
the garden;in the garden;the roses were in bloom;bees hummed from flower to flower;a ladybug
the hill;on the hill;the wind was fresh and cool;one could see the whole valley from there;a hawk
the market;at the market;the stalls were full of fruit and bread;it smelled of spices and warm pies;a juggler
the pond;by the pond;the water was smooth as glass;lily pads floated in the sun;a dragonfly
the old mill;at the old mill;the great wheel creaked and turned;flour dust danced in the light;a barn cat
the library;in the library;it was quiet and smelled of old paper;the shelves reached up to the ceiling;an old librarian
the orchard;in the orchard;the branches were heavy with apples;the air smelled of ripe fruit;a blackbird
the harbor;at the harbor;the boats rocked gently on the water;gulls cried above the masts;a seagull
the mountain;on the mountain;the air was thin and clear;snow shone on the peak;an eagle
the field;in the field;the wheat swayed like a golden sea;a scarecrow stood with open arms;a lark
the lake;by the lake;the water was blue and deep;a small boat was tied to a post;a heron
the valley;in the valley;mist lay over the grass;a small stream ran through the middle;a shepherd
the castle garden;in the castle garden;stone statues stood among the hedges;a fountain played softly;a peacock
""".splitlines()]

# thing; what it is made of or like; what one does with it
TOYS = [row.split(";") for row in """\
kite;red,blue,yellow,green;fly it high in the wind
ball;red,blue,yellow,striped;bounce it against the wall
teddy bear;brown,soft,old,fluffy;hug it at night
toy boat;wooden,blue,white,little;sail it on the pond
drum;small,red,loud,shiny;play it all day long
doll;pretty,little,soft,old;tell it secrets
toy train;wooden,green,shiny,red;push it around the room
hat;blue,straw,funny,red;wear it everywhere
scarf;warm,red,striped,woolly;wrap it around and around
whistle;silver,tin,shiny,little;blow it in the morning
bell;golden,little,silver,brass;ring it and listen
book;old,thick,little,green;read it under a tree
lantern;small,bright,brass,paper;light it in the evening
umbrella;yellow,big,purple,red;dance with it in the rain
marble;blue,shiny,green,glass;roll it across the floor
button;shiny,round,golden,blue;polish it until it shone
basket;straw,round,little,brown;fill it with berries
blanket;soft,blue,patchwork,warm;curl up in it
flute;wooden,silver,little,old;play soft tunes on it
spoon;wooden,silver,big,old;stir soup with it
key;rusty,golden,tiny,old;wonder which door it opened
shell;pink,white,spiral,shiny;hold it close and hear the sea
feather;white,blue,long,soft;wear it like a crown
cup;blue,tin,painted,little;drink cocoa from it
bicycle;red,blue,little,shiny;ride it down the lane
wagon;red,little,wooden,squeaky;pull it up the hill
pencil;blue,short,golden,striped;draw pictures with it
paint box;new,little,bright,old;paint the whole world
""".splitlines()]

TREATS = ["apple pie", "chocolate cake", "bread with jam", "strawberry tart", "honey cake", "warm soup", "blueberry muffins", "cookies",
          "pancakes", "a bowl of cherries", "ginger cookies", "a big pumpkin pie", "lemon cake",
          "fresh bread", "peach jam", "a plum tart", "roasted nuts", "sweet pears", "a cheese sandwich", "berry pie", "oat cookies"]

WEATHER = ["The sun was [bright|warm|shining].", "The sky was [clear and blue|as blue as a plum|full of small white clouds].",
           "A [soft|cool|gentle|warm] wind [blew|was blowing] [through the trees|from the hills|over the fields].",
           "[It had rained all night|Rain had fallen in the night], and [everything smelled fresh|the puddles shone in the sun].",
           "[Birds|The birds] were singing in the [trees|bushes|hedges].", "There was not a single cloud in the sky.",
           "The air smelled of [flowers|fresh grass|rain|apples|pine trees].", "[A little|Thin] mist still lay [over the grass|on the fields].",
           "The first leaves had begun to [fall|turn yellow].", "Snow lay on the [roofs|ground|fields] like a [white|soft] blanket.",
           "It was [a little cold|cold and windy], but [no one minded|that did not matter].", "[Everything was quiet|All was still] except for [a bee|the wind|a far bell]."]

TIMES = ["one [day|morning|sunny day|fine day|afternoon|bright morning|spring morning|summer day|windy day|autumn day|cold morning|quiet afternoon]",
         "one [Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday] [morning|afternoon]", "early one morning", "on a [warm|rainy|windy|bright|gray|lovely] [day|morning|afternoon]",
         "[at the end of summer|in the middle of spring|at the start of autumn|on the first day of winter]", "late one afternoon"]

LATER = ["[A little|A short while|Some time] later", "[After a while|Soon|Before long|In a little while|At last|After some time]", "[That|The same] [afternoon|evening]",
         "[When the sun was high|By noon|When the clock struck [three|four|five]]"]


def _cast(env, slot, name, gender, kind, desc, animal=None):
    """Writes one character into the environment under `slot`; see grammar.py for how keys are used."""
    s, o, p, r = {"f": ("she", "her", "her", "herself"), "m": ("he", "him", "his", "himself")}[gender]
    env[slot] = name
    env[slot + ".s"], env[slot + ".o"], env[slot + ".p"], env[slot + ".r"] = s, o, p, r
    env[slot + ".gender"] = gender
    env[slot + ".kind"] = kind
    env[slot + ".desc"] = desc
    env[slot + ".the"] = "the " + kind
    env[slot + ".x"] = [name, s]
    env[slot + ".ref"] = [name, name, "the " + kind]
    env[slot + ".mum"] = [p + " [mother|mother|mom|mama]"] if animal is None else [p + " [mother|mama]"]
    env[slot + ".fam"] = [p + " [mother|father|grandmother|grandfather|aunt|uncle|big sister|big brother]"]
    env[slot + ".home"] = "a small house" if animal is None else animal[2]
    env[slot + ".food"] = "bread and jam" if animal is None else animal[3]
    env[slot + ".went"] = ["walked", "went", "ran", "hurried"] if animal is None else [animal[4], animal[4], "went"]
    env[slot + ".hand"] = "hand" if animal is None else animal[5]
    env[slot + ".skill"] = "telling good stories" if animal is None else animal[7]


def plural_limb(word):
    return "feet" if word == "foot" else word + "s"


def cast_child(rng, env, slot, taken, gender=None):
    gender = gender or pick(rng, "fm")
    name = story_name(rng, gender, slot)
    while name in taken:
        name = story_name(rng, gender, slot)
    taken.add(name)
    kind = "girl" if gender == "f" else "boy"
    desc = pick(rng, ["little ", "young ", "small ", "", pick(rng, TRAITS) + " ", pick(rng, TRAITS) + " little "]) + kind
    _cast(env, slot, name, gender, kind, desc)
    env[slot + ".hands"] = "hands"


def cast_animal(rng, env, slot, taken, kind=None, gender=None, kinds_taken=()):
    if kind:
        row = next((r for r in ANIMALS if r[0] == kind), None) or thing_row(rng, kind)
    else:
        row = pick(rng, ANIMALS)
        while row[0] in kinds_taken:
            row = pick(rng, ANIMALS)
    gender = GENDERS.get(row[0]) or gender or pick(rng, "fm")
    name = story_name(rng, gender, slot, pet=chance(rng, 0.75))
    while name in taken:
        name = story_name(rng, gender, slot, pet=True)
    taken.add(name)
    size, colour = pick(rng, row[6].split(",")), pick(rng, row[1].split(","))
    desc = pick(rng, [size, colour or size, size + " " + colour, pick(rng, TRAITS), pick(rng, TRAITS) + " " + colour, pick(rng, TRAITS) + " little"])
    words = desc.split()
    desc = " ".join(dict.fromkeys(words)) + " " + row[0]
    _cast(env, slot, name, gender, row[0], desc, row)
    env[slot + ".hands"] = plural_limb(row[5])


def settle_pronouns(env, slots):
    """A pronoun may stand for a name only where no one else in the story has the same pronoun."""
    for slot in slots:
        alone = all(env[other + ".gender"] != env[slot + ".gender"] for other in slots if other != slot)
        name, pronoun = env[slot], env[slot + ".s"]
        env[slot + ".x"] = [name, pronoun] if alone else [name]
        env[slot + ".ox"] = [name, env[slot + ".o"]] if alone else [name]
        shared_kind = any(env[other + ".kind"] == env[slot + ".kind"] for other in slots if other != slot)
        env[slot + ".ref"] = [name] if shared_kind else [name, name, "the " + env[slot + ".kind"]]


def new_world(rng, want=None):
    """A fresh cast and setting. `want` may fix: kind (animal kind, 'girl', 'boy'), name, friend_kind, place."""
    want = want or {}
    env, taken = {}, set()
    kind = want.get("kind")
    animal = kind not in ("girl", "boy") if kind else chance(rng, 0.5)
    if animal:
        cast_animal(rng, env, "h", taken, kind=kind or (pick(rng, THINGS) if chance(rng, 0.04) else None))
    else:
        cast_child(rng, env, "h", taken, {"girl": "f", "boy": "m"}.get(kind))
    if want.get("name"):
        taken.discard(env["h"])
        hands, row = env["h.hands"], (next((r for r in ANIMALS if r[0] == env["h.kind"]), None) or thing_row(rng, env["h.kind"])) if animal else None
        _cast(env, "h", want["name"], GENDERS.get(env["h.kind"]) or want.get("gender") or env["h.gender"], env["h.kind"], env["h.desc"], row)
        env["h.hands"] = hands
        taken.add(want["name"])
    friend_animal = chance(rng, 0.85) if animal else chance(rng, 0.35)
    other = "f" if env["h.gender"] == "m" else "m"
    gender = other if chance(rng, 0.7) else env["h.gender"]
    if friend_animal:
        cast_animal(rng, env, "f", taken, gender=gender if chance(rng, 0.9) else None, kinds_taken=(env["h.kind"],))
    else:
        cast_child(rng, env, "f", taken, gender)
    cast_animal(rng, env, "a", taken, kinds_taken=(env["h.kind"], env["f.kind"]))
    cast_animal(rng, env, "b", taken, kinds_taken=(env["h.kind"], env["f.kind"], env["a.kind"]))
    env["animal"] = animal
    settle_pronouns(env, ["h", "f"])
    for slot in ("a", "b"):
        env[slot + ".x"] = [env[slot]]
        env[slot + ".ref"] = ["the " + env[slot + ".kind"]]
    place = want.get("place_row") or pick(rng, PLACES)
    away = pick(rng, PLACES)
    while away[0] == place[0]:
        away = pick(rng, PLACES)
    for slot, row in (("place", place), ("away", away)):
        env[slot], env[slot + ".in"], env[slot + ".d1"], env[slot + ".d2"], env[slot + ".who"] = row
    toy = pick(rng, TOYS)
    env["toy"], env["toy.use"] = toy[0], toy[2]
    env["toy.adj"] = pick(rng, toy[1].split(","))
    env["toys"] = env["toy.adj"] + " " + toy[0]
    env["treat"] = pick(rng, TREATS)
    env["trait"] = pick(rng, TRAITS)
    env["weather"] = WEATHER
    env["time"] = pick(rng, TIMES)
    env["later"] = LATER
    env["glad"] = ["happy", "glad", "full of joy", "very happy", "so happy"]
    env["sad"] = ["sad", "unhappy", "very sad", "a little sad"]
    env["said"] = ["said", "said", "answered", "replied"]
    return env
