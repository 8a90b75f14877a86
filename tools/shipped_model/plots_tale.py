"""Plots of adventure and fairy tale: journeys, trades, dragons, wishes, riddles, races."""

from grammar import chance, pick
from story import ending, interlude, meet_friend

# what the traveller meets; how it is solved; what the one who helped is
OBSTACLES = [
    ("a wide river without a bridge", "A beaver laid a tree across the water, and {h.s} balanced to the other side"),
    ("a high wall of stone", "{H.s} looked for a long time and found a small door behind the ivy"),
    ("a dark tunnel", "{H.s} held up {h.p} little lamp and sang a song, and soon there was light at the other end"),
    ("a gate with a sleeping giant in front of it", "{H.s} took off {h.p} shoes and tiptoed past on the soft moss"),
    ("a swamp full of mud", "{H.s} jumped from one tuft of grass to the next, counting out loud"),
    ("a steep hill of loose stones", "{H.s} went up in a zigzag, slowly, and did not look down"),
    ("a thick fog", "{H.s} followed the sound of a far bell, step by step"),
    ("a narrow bridge that swung in the wind", "{H.s} looked straight ahead and thought of home, and soon it was behind {h.o}"),
    ("three paths that all looked the same", "{H.s} saw that only one of them had fresh footprints, and took it"),
    ("a troll who asked for a present", "{H.s} gave him the red ribbon from {h.p} bag, and the troll tied it around his ear and blushed"),
    ("an old woman who could not lift her basket", "{H.s} carried it for her, and she showed {h.o} the shortest way"),
]
GOALS = [
    ("{h.p} grandmother was ill", "the blue flower that grows {away.in}", "made a tea of it", "the next morning her cheeks were red again"),
    ("the well in the village had run dry", "the old rain bell {away.in}", "rang it three times", "soft rain began to fall, and the well was full again"),
    ("the village had no more fire", "a spark from the fire bird {away.in}", "lit the great lamp in the square", "every house was warm and bright again"),
    ("the king could not laugh anymore", "the feather that tickles, which was kept {away.in}", "tickled the king's nose with it", "the king laughed so loudly that the windows shook"),
    ("the bees had lost their queen", "the golden queen bee, who had flown away to a place {away.in}", "carried her home in a flower", "the bees hummed, and there was honey for everyone"),
    ("the baby of the miller cried day and night", "the lullaby that the old owl sings {away.in}", "sang it softly beside the cradle", "the baby smiled and slept at last"),
    ("the lighthouse had gone dark", "a new lamp glass from the glass maker {away.in}", "climbed all the stairs and put it in", "the ships found their way home again"),
]


def quest(s):
    s.choose(GOALS, "need", "goal", "use", "result")
    s.theme = s.fill("who goes on [a long journey|an adventure|a journey|a quest]")
    obstacles = s.rng.sample(OBSTACLES, 3 if chance(s.rng, 0.6) else 2)
    s.say("But {time}, there was bad news: {need}. \"Only one thing can help,\" said the old [people|doctor|teacher]. \"We need {goal}.\"", "{Time}, {h} heard that {need}. \"Who will go and bring {goal}?\" everyone asked. Nobody answered.")
    s.say("\"I will go,\" said {h}. [Some laughed, for {h.s} was so small|{H.fam} packed {treat} into a bag for {h.o}|And {h.s} set off before the sun was up].", "{H.x} did not think twice. {H.s} took a bag, a small lamp and a red ribbon, and went on {h.p} way.")
    s.par()
    for number, (what, solved) in enumerate(obstacles):
        s.set(what=what, solved=solved)
        start = ["First {h} came to {what}.", "Then {h} came to {what}.", "After that, {h} came to {what}."][number]
        s.say(start, start, "[Before long|Soon|After a long walk], there was {what} in front of {h.o}." if number else start)
        s.say("\"What now?\" {h.s} thought. {Solved}.", "{Solved}.", "{H.x} [thought hard|did not give up|took a deep breath]. {Solved}.")
    if chance(s.rng, 0.5):
        s.par()
        s.say("In the evening, {h} met {f}, a {f.desc}. \"Are you lost?\" asked {f}. \"I am looking for {goal},\" said {h}. \"Then let us go together,\" said {f}.", "A {f.desc} named {f} was sitting by the road. \"You look tired,\" said {f}. {H} shared {treat} with {f.o}, and so {f} showed {h.o} the last part of the way.")
        s.facts["Whom did {h} meet on the way?"] = "{H} met {f}, a {f.desc}."
    s.par()
    s.say("And there, {away.in}, {h} found the very thing that {h.s} had been looking for! {H.p} heart jumped for joy.", "At last {h} stood {away.in}. {Away.d1}. And there it was, just as they had said.")
    s.say("{H.x} went home as fast as {h.s} could and {use}. And {result}.", "The way home seemed much shorter. {H.x} {use}, and {result}.")
    s.say("Everyone [cheered|sang and danced] and thanked {h}. \"You are [small|young], but your heart is big,\" they said.", "\"How did you do it?\" they all asked. \"One step after another,\" said {h}.")
    s.facts["Why did {h} go on a journey?"] = "{H} went because {need}."
    s.facts["What did {h} look for?"] = "{H} looked for {goal}."
    ending(s, "a long way is made of small steps.", "you do not have to be big to do great things.", "courage and kindness open many doors.")


TRADERS = [("the hen", "an egg", "corn"), ("the baker", "fresh bread", "flour"), ("the cow", "milk", "green grass"), ("the bee", "honey", "a flower"), ("the sheep", "wool", "a bell"),
           ("the old fisherman", "a fish", "a new hook"), ("the squirrel", "nuts", "a warm scarf"), ("the miller", "flour", "a cat to catch the mice"), ("the tailor", "a warm scarf", "wool"),
           ("the blacksmith", "a new hook", "hot soup"), ("the gardener", "a flower", "fresh water"), ("the crow", "a bell", "a shiny button"), ("the farmer", "corn", "help with the harvest")]


def trade_chain(s):
    """A chain of wishes: each one has what the one before wants, and in the end a kind deed starts it all."""
    rng = s.rng
    chain = []
    people = rng.sample(TRADERS, 3)
    s.set(first=people[0][1])
    s.choose([("bake a cake for {f}",), ("make a present for {f}",), ("cook a soup for the winter feast",), ("cheer up {h.fam}, who was ill",), ("get ready for the spring feast",)], "purpose")
    s.theme = s.fill("who trades one thing for another")
    s.say("{Time}, {h} wanted to {purpose}. For that {h.s} needed {first}.", "{H} had a plan: {h.s} would {purpose}. But first {h.s} needed {first}.")
    s.par()
    for number, (who, has, wants) in enumerate(people):
        nxt = people[number + 1] if number + 1 < len(people) else None
        wanted = nxt[1] if nxt else pick(rng, ["a song", "a good story", "a helping hand", "someone to talk to", "a big hug", "a joke"])
        s.set(who=who, has=has, wanted=wanted)
        chain.append((who, has, wanted))
        s.say("[So|Then] {h} went to {who}. \"Please, may I have {has}?\" {h.s} asked. \"[I will give you {has}|You can have it|Gladly],\" said {who}, \"if you bring me {wanted}.\"",
              "{H.x} asked {who} for {has}. \"You may have {has},\" said {who}, \"but [first I need|in return I would like] {wanted}.\"",
              "\"{Has}?\" said {who}. \"Of course, but I have been wishing for {wanted} for a long time.\"")
    last_who, last_has, last_wanted = chain[-1]
    s.set(who=last_who, has=last_has, wanted=last_wanted)
    s.par()
    s.say("\"{Wanted}?\" said {h}. \"That is something that I can give!\" And {h.s} did it with all {h.p} heart.", "{H} smiled. {Wanted} was easy to give, and {h.s} gave it gladly.")
    s.say("{Who} was so {glad} that {h} got {has} at once.", "{Who} laughed and gave {h} {has}, just as promised.")
    for who, has, wanted in reversed(chain[:-1]):
        s.set(who=who, has=has, wanted=wanted)
        s.say("{H} [took|carried|brought] {wanted} to {who}, and {who} gave {h.o} {has}.", "With {wanted}, {h} ran back to {who} and got {has}.")
    s.say("[And so|In the end] {h} had {first} at last, and {h.s} could {purpose}. Everyone who had helped was invited[ too|].", "Now {h} had everything. And when the work was done, they all sat together, and there was enough for everyone.")
    s.facts["What did {h} need first?"] = "{H} needed {first}."
    s.facts["What did {h} want to do?"] = "{H} wanted to {purpose}."
    ending(s, "everyone needs something, and everyone has something to give.", "a kind deed can start a chain of good things.")


FEARED = [("dragon", "breathed smoke over the hills", "cave in the mountain", "nobody ever came to visit", "lit the lamps in the village every evening"),
          ("giant", "shook the ground with every step", "castle of gray stone", "everyone ran away when he said hello", "lifted the children up so that they could pick the highest apples"),
          ("witch", "lived in a crooked house with green smoke", "crooked house in the forest", "people told bad stories about her, and none of them were true", "made medicine for anyone who was ill"),
          ("troll", "growled under the old bridge", "dark place under the bridge", "no one had ever asked him his name", "kept the bridge clean and helped people across"),
          ("ghost", "howled in the old tower", "old tower", "it had been waiting a hundred years for someone to play with", "rang the tower bell on every feast day"),
          ("wolf", "howled at the moon every night", "den between the black rocks", "it was alone and did not know any other song", "sang the sheep to sleep and watched over them")]


def feared_one(s):
    s.choose(FEARED, "beast", "deed", "lair", "why", "after")
    s.set(bs={"witch": "she", "ghost": "it", "wolf": "it"}.get(s.env["beast"], "he"), bo={"witch": "her", "ghost": "it", "wolf": "it"}.get(s.env["beast"], "him"))
    s.theme = s.fill("who [meets|visits|is afraid of] a {beast}")
    s.say("Not far away there was a {beast} that {deed}. Everyone was afraid of {bo}.", "All the [people|animals] told [terrible|dark] stories about a {beast} that {deed}.", "In those days there was a {beast} that {deed}, and no one dared to go near.")
    s.say("\"Never go to the {lair},\" said {h.fam}. But {h} [wondered|kept thinking]: has anyone ever talked to the {beast}?", "\"Has anyone ever asked the {beast} what is wrong?\" asked {h}. Nobody had.")
    s.par()
    s.say("{Time}, {h} took {treat} and went to the {lair}. {H.p} knees were shaking, but {h.s} knocked.", "So {time}, {h} walked to the {lair}, all alone. It was [dark|cold] and very quiet.")
    s.say("\"Who is there?\" roared the {beast}. \"[Go away|Are you not afraid]?\"", "The {beast} came out. {Bs} was even bigger than the stories said. \"What do you want?\" {bs} growled.")
    s.say("\"I am {h},\" said {h} in a small voice. \"I [brought you something to eat|wanted to say hello|thought that you might be lonely].\"", "\"I am a little afraid,\" said {h}, \"but I wanted to meet you.\"")
    s.say("The {beast} was so surprised that {bs} sat down. \"[No one has ever said that to me|Nobody ever brought me anything],\" said the {beast}. And it was true: {why}.", "A big tear rolled down the {beast}'s face. \"I have been alone for so long,\" {bs} said.")
    s.par()
    s.say("They ate together and talked until the [sun went down|moon came up]. The {beast} told wonderful stories, and {h} laughed.", "{H} stayed all afternoon. They played [cards|hide and seek|a game with stones], and the {beast} was very bad at it, but did not mind.")
    s.say("The next day, {h} took the {beast} along and went to the others. \"This is my friend,\" {h.s} said. [At first everyone ran away|Some hid behind the door]. But {f}, a {f.desc}, stepped forward. \"Hello,\" said {f}.", "{H} told everyone what had happened. At first they did not believe it. Then {f}, a {f.desc}, came along to see, and after {f.o} came the others, one by one.")
    s.say("After that, nobody was afraid anymore. The {beast} {after}.", "And from then on, the {beast} {after}, and was never alone again.")
    s.facts["Who was everyone afraid of?"] = "Everyone was afraid of the {beast}."
    s.facts["What was the {beast} really like?"] = "The {beast} was only lonely, and became a good friend."
    ending(s, "you should not judge someone by what others say.", "many who seem scary are only lonely.", "a kind word is stronger than fear.")


WISHES = [("for a mountain of {treat}", "soon {h.s} could not eat another bite, and the rest began to spoil"), ("for a castle with a hundred rooms", "the castle was so big and empty that {h.s} got lost in it and heard only {h.p} own steps"),
          ("to be as tall as a tree", "{h.s} could not fit through any door, and the birds began to nest in {h.p} hair"), ("that it would never be night", "{h.s} grew so tired, and no one could sleep, and the flowers hung their heads"),
          ("to be able to fly", "the wind carried {h.o} so high that {h.s} felt dizzy and very alone"), ("that everything {h.s} touched would turn to gold", "even {h.p} breakfast turned to cold, hard gold"),
          ("to be king of the whole land", "everyone bowed, but no one wanted to play anymore"), ("that it would always be summer", "the stream dried up, and there was no snow for sliding")]


def wishes(s):
    s.choose([("an old lamp", "a little spirit of smoke"), ("a golden fish", "the fish itself"), ("a strange blue stone", "a voice inside the stone"), ("a bottle on the shore", "a tiny fairy no bigger than a thumb"), ("a silver ring", "a small man with a white beard")], "thing", "spirit")
    first, second = s.rng.sample(WISHES, 2)
    s.theme = s.fill("who [gets|has] three wishes")
    s.say("{Time}, {h} found {thing} {place.in}. When {h.s} [picked it up|rubbed it gently], {spirit} began to speak.", "{Time}, {h} was {place.in} when something shone in the light. It was {thing}. {Spirit} spoke to {h.o}.")
    s.say("\"You have three wishes,\" it said. \"But think well, for [not every wish makes you happy|a wish cannot be taken back easily].\"", "\"Thank you for finding me,\" it said. \"You may wish for three things.\"")
    s.par()
    s.set(w1=first[0], r1=first[1], w2=second[0], r2=second[1])
    s.say("{H} did not think long. {H.s} wished {w1}. At first it was wonderful. But {r1}.",
          "First, {h} wished {w1}. It happened at once, and {h} laughed for joy. But {r1}.")
    s.say("Then {h} wished {w2}. But {r2}.", "\"I must choose better,\" thought {h}, and {h.s} wished {w2}. But {r2}.")
    s.par()
    s.say("Now there was only one wish left. {H} sat down and thought for a long time. {F}, a {f.desc}, sat down beside {h.o}. \"What do you really want?\" asked {f}.", "{H} went to {f}, a {f.desc}, and told {f.o} everything. \"What made you happy before you had wishes?\" asked {f}.")
    s.say("{H} looked at {f}, at the trees and the sky. \"[I want everything to be as it was|I already had what I need],\" {h.s} said. And with the last wish, {h.s} wished everything back.", "\"I was happy with you, and with {h.food}, and with the sun,\" said {h}. So {h.s} used the last wish to make everything as it had been before.")
    s.say("[The castle, the gold and all the rest|All the magic] was gone. But {f} was still there, and so was the evening sun. {H} had never been so happy.", "\"That was a wise wish,\" said {spirit}, and it was never seen again.")
    s.facts["What did {h} find?"] = "{H} found {thing}."
    s.facts["How many wishes did {h} have?"] = "{H} had three wishes."
    ending(s, "the best things are often the ones we already have.", "be careful what you wish for.", "a happy heart needs no magic.")


def race(s):
    s.choose([("a golden cup",), ("a big cake",), ("a blue ribbon",), ("a basket of apples",)], "prize")
    s.theme = s.fill("about a race")
    s.say("{A}, a {a.desc}, was very proud. \"I am the fastest of all,\" said {a} every day. \"No one can beat me!\"", "Every year there was a big race {place.in}, and the prize was {prize}. \"I will win, of course,\" said {a}, a {a.desc}.")
    s.say("\"I will race you,\" said {h}. Everyone [laughed|was surprised]. \"You?\" said {a}. \"You are much too [slow|small]!\"", "{H} wanted to run too. \"You?\" laughed {a}. \"Then I can walk and still win.\"")
    s.par()
    s.say("On the day of the race, everyone came to watch. \"Ready, steady, go!\" called {f}, a {f.desc}. {A} shot off like an arrow. {H} ran too, [steady and calm|as well as {h.s} could].")
    if chance(s.rng, 0.5):
        s.say("After a while, {a} looked back. {H} was far behind. \"I have so much time,\" said {a}. \"I will [take a nap|eat a snack|pick some berries|look at myself in the pond].\" And so {a} stopped.")
        s.say("{H} did not stop. Step by step, {h.s} went on. {H.s} passed the bridge, {h.s} passed the mill, and {h.s} passed {a}, who did not even notice.", "But {h} kept going. \"One step, and one more step,\" {h.s} told {h.r}.")
        s.say("When {a} looked up, {h} was almost at the finish. {A} ran and ran, but it was too late. {H} had won!")
        s.say("\"How did you do that?\" asked {a}. \"I just did not stop,\" said {h}, and {h.s} shared {prize} with everyone.", "{A} was ashamed. But {h} held out a {h.hand}. \"You are very fast,\" said {h}. \"Next time we will both do our best.\"")
        s.facts["Who won the race?"] = "{H} won the race."
        ending(s, "slow and steady wins the race.", "being proud is not the same as being good.", "those who keep going arrive.")
    else:
        s.say("Halfway, {h} heard a cry. {B}, a {b.desc}, had fallen into a ditch and could not get out. {A} had run past without looking.", "In the middle of the race, {h} saw {b}, a {b.desc}, who had hurt a foot. All the others had just run by.")
        s.say("{H} looked at the finish and then at {b}. \"The race can wait,\" {h.s} said, and {h.s} stopped to help.", "\"Go on,\" said {b}. \"You could win!\" But {h} shook {h.p} head and helped {b} up.")
        s.say("They came in last, arm in arm. {A} stood there with {prize}. But everyone was cheering for {h}.", "When {h} and {b} came over the line, the race had long been over. Yet everyone [clapped|cheered] louder than before.")
        s.say("{A} looked at the prize for a while. Then {a} walked over. \"I was the fastest,\" {a} said, \"but you are the real winner.\" And {a} gave {h} the prize.", "\"Why are they cheering for you?\" asked {a}. \"You lost!\" \"No,\" said {b}, \"{h} won a friend.\"")
        s.facts["Who won the race?"] = "{A} was the fastest, but everyone cheered for {h}, who stopped to help {b}."
        ending(s, "kindness is worth more than winning.", "it is not always the fastest who is the real winner.", "helping is better than winning.")


def small_and_big(s):
    s.choose([("lion", "roared", "a hunter's net", "gnawed through the ropes, one by one", "mouse"), ("bear", "growled", "a hollow tree", "dug the earth away from below", "mole"), ("elephant", "trumpeted", "deep mud", "called a hundred friends, and they all pulled together", "ant"),
              ("horse", "neighed", "a rope around a post", "picked at the knot until it opened", "sparrow"), ("wolf", "howled", "a thorn bush", "pulled out the thorns, one after another", "mouse"), ("whale", "sang", "shallow water", "called the tide with a very old song", "crab"),
              ("giant", "shouted", "his own shoelaces", "untied the knots with tiny clever fingers", "fairy")], "big", "noise", "trap", "deed", "small")
    s.theme = s.fill("about a {small} and a {big}")
    s.out.clear()
    s.say("[Once upon a time|Long ago|Once|One day], a {small} [ran over|sat on|tickled] the nose of a sleeping {big}. The {big} woke up and {noise}.", "[Once upon a time|Once|Long ago], there was a mighty {big} and a tiny {small}. One day, the {small} bumped into the {big} by mistake.")
    s.say("\"How dare you!\" said the {big}. \"I could [crush|swallow] you!\" \"Please let me go,\" said the {small}. \"One day I may help you too.\"", "\"Please do not hurt me,\" said the {small}. \"If you let me go, I will help you some day.\"")
    s.say("The {big} laughed and laughed. \"You? Help me? You are no bigger than [my toe|a nut|a crumb]!\" But it was in a good mood, and so it let the {small} go.", "\"How could someone like you ever help me?\" laughed the {big}. Still, it opened its grip, and the {small} ran away.")
    s.par()
    s.say("Some days later, the {small} heard a terrible sound. It was the {big}. It was caught in {trap} and could not get free.", "Not long after, the {big} was caught in {trap}. It pulled and {noise}, but nothing helped. The {small} heard it and came at once.")
    s.say("\"[Hold still|Be calm|Do not worry],\" said the {small}. \"I will help you.\" And the {small} {deed}.", "The {small} did not wait. It {deed}.")
    s.say("It took a long time, but at last the {big} was free. \"I laughed at you,\" said the {big}, \"and I was wrong. Thank you, little friend.\"", "Soon the {big} was free. It bowed its great head. \"You are small,\" it said, \"but you saved me.\"")
    s.say("From that day on, the {small} often sat on the {big}'s back, and together they watched the sun go down.", "And since then, the {big} and the {small} have been friends.")
    s.facts["Who helped the {big}?"] = "The {small} helped the {big}."
    s.facts["Where was the {big} caught?"] = "The {big} was caught in {trap}."
    s.moral = s.fill("[No one is too small to help.|A small friend can be a great friend.|Kindness is never wasted.]")
    s.env["moral"] = s.moral
    s.maybe(0.7, "{moral}")


def lost_in_forest(s):
    s.theme = s.fill("who [gets lost|is lost|gets lost in the forest]")
    s.say("{Time}, {h} went into the forest to pick [berries|mushrooms|flowers]. \"Stay on the path,\" said {h.fam}. But {h} saw [a blue butterfly|the biggest berries|a white deer] and followed it, deeper and deeper.", "{Time}, {h} walked {h.p} usual way through the forest. But a thick fog came, and soon {h.s} did not know which way was home.")
    s.say("When {h.x} looked around, every tree looked the same. \"I am lost,\" {h.s} whispered.", "It grew dark, and strange sounds came from everywhere. {H} shivered. \"Where am I?\"")
    s.par()
    s.say("{H.x} wanted to cry. But then {h.s} remembered what {h.fam} always said: \"When you are lost, [stay calm and look for a light|sit down, breathe, and think|listen for water, and follow it].\"", "First {h.s} called for help. No answer. Then {h.s} sat down under a big tree and hugged {h.p} knees.")
    s.say("Far away, between the trees, {h} saw a tiny light. {H.x} went toward it, one step at a time. It was a lamp in the window of a small house, and there lived {f}, a {f.desc}.", "Suddenly {h} heard a soft voice. \"What are you doing here so late?\" It was {f}, a {f.desc}, with a lamp in one {f.hand}.")
    s.say("The friendly {f.kind} gave {h.o} {treat} and a warm place by the fire. \"Tomorrow I will show you the way,\" said {f}.", "\"I lost my way,\" said {h}. \"I know every tree in this forest,\" said the {f.kind}. \"Come, I will take you home.\"")
    s.par()
    s.say("As they walked, the {f.kind} taught {h.o} how to find the way: moss grows on the side of the trees that gets less sun, and the [evening star|river] can guide you.", "\"Look,\" said the {f.kind}. \"The river runs down to the village. If you follow the river, you can never be lost.\"")
    s.say("At the edge of the forest, {h} saw the lights of home. {H.fam} came running. \"We looked for you everywhere!\" And there were many hugs.", "{H.mum} stood at the door with a lamp. When she saw {h}, she ran and took {h.o} in her arms.")
    s.say("{H} turned around to say thank you, but the {f.kind} was [already gone|waving from the trees].", "\"Come and visit us,\" said {h} to the {f.kind}. And that is how a new friendship began.")
    s.facts["Where did {h} get lost?"] = "{H} got lost in the forest."
    s.facts["Who helped {h}?"] = "A friendly {f.kind} helped {h}."
    ending(s, "when you are lost, it helps to stay calm.", "there is almost always someone who can help you.", "it is wise to listen to good advice.")


TREASURES = [("an old book with empty pages, and a note: write your own story", "a book"), ("a bag of seeds, and soon the whole valley was full of flowers", "seeds"), ("a mirror, and under it the words: look, here is the treasure", "a mirror"),
             ("a hundred golden coins, and they bought a new roof for the school", "golden coins"), ("toys from long ago, and they gave one to every child in the village", "old toys"), ("a letter from {h.p} grandfather, who had hidden it when he was a boy", "a letter"),
             ("a little music box, and its song made everyone think of home", "a music box")]
CLUES = ["Look where the water sings", "Walk to the tree that is older than the king", "Stand where the shadow of the tower falls at noon", "Find the stone that looks like a sleeping cow", "Count ten steps from the red door", "Go where the wind turns the great wings", "Look under the bench where the old friends sit",
         "Follow the wall until it ends", "Knock three times on the hollow tree"]
CLUE_PLACES = {"Look where the water sings": "the little waterfall", "Walk to the tree that is older than the king": "the great old oak", "Stand where the shadow of the tower falls at noon": "the foot of the tower", "Find the stone that looks like a sleeping cow": "the big gray stone on the hill",
               "Count ten steps from the red door": "a spot behind the bakery with the red door", "Go where the wind turns the great wings": "the windmill", "Look under the bench where the old friends sit": "the bench by the pond", "Follow the wall until it ends": "the end of the old wall", "Knock three times on the hollow tree": "the hollow tree"}


def treasure(s):
    s.choose(TREASURES, "prize", "prizeshort")
    clues = s.rng.sample(CLUES, 2 if chance(s.rng, 0.5) else 3)
    s.theme = s.fill("who [finds|looks for] a treasure")
    meet_friend(s)
    s.par()
    s.say("{Time}, {h} found an old piece of paper [in a bottle|in the attic|inside an old book|under a loose board]. \"It is a treasure map!\" {h.s} cried. {F} came running.", "{Time}, the wind blew an old paper right into {h}'s face. There was an X on it, and some words. \"A map!\" said {f}.")
    for number, clue in enumerate(clues):
        s.set(clue=clue, spot=CLUE_PLACES[clue])
        s.say(["On it was written: \"{clue}.\"", "There they found a second note. \"{clue},\" it said.", "And there was a third note: \"{clue}.\""][number])
        s.say("{H} thought for a while. \"I know!\" {h.s} said. \"It must be {spot}.\" And off they ran.", "\"What can that mean?\" asked {f}. {H} looked around. \"{Spot}!\" {h.s} said. They went there at once.", "\"That is easy,\" said {f}. \"It means {spot}.\"")
        interlude(s, 0.15)
    s.par()
    s.say("There they began to dig. They dug until their {h.hands} hurt. Then they heard a sound: knock! It was a small wooden box.", "Behind a loose stone stood a rusty little box. {H}'s heart beat fast. \"You open it,\" said {f}. \"No, you,\" said {h}. So they opened it together.")
    s.say("Inside was {prize}.", "They lifted the lid. There lay {prize}.")
    s.say("\"That is the best treasure of all,\" said {f}.", "\"I thought there would be jewels,\" said {h}. \"But this is better.\"", "They looked at each other and smiled. \"The best part was looking for it with you,\" said {h}.")
    s.facts["What was in the box?"] = "In the box they found {prizeshort}."
    s.facts["Who went with {h} to find the treasure?"] = "{F}, a {f.desc}, went with {h}."
    ending(s, "the way to the treasure can be the best part.", "two heads are better than one.", "a treasure is something that makes you happy, not something that shines.")


def star(s):
    s.theme = s.fill("about a fallen star")
    s.say("One night, {h} saw a star fall from the sky. It came down {place.in} with a soft sound, like a [bell|sigh].", "One clear night, something bright fell down {place.in}. {H} ran to look. It was a little star!")
    s.say("The star was no bigger than an apple, and it [glowed weakly|was crying silver tears]. \"I want to go home,\" it said. \"I fell because I [leaned too far to see the earth|fell asleep|was dancing too wildly].\"")
    s.say("\"Do not cry,\" said {h}. \"I will bring you back.\" But how do you bring a star back to the sky?", "{H} wrapped the star in {h.p} scarf to keep it warm. \"We will find a way,\" {h.s} promised.")
    s.par()
    s.say("First they climbed the highest [hill|tree|tower], but the sky was still too far. Then {h} tried to throw the star, but it came down again [with a bump|in a bush].", "{H} asked {f}, a {f.desc}. They built a tower of boxes, but the tower shook and fell. They tied the star to a kite, but the wind was too weak.")
    s.say("\"Who lives nearest to the sky?\" asked {h}. \"The [eagle|old wind],\" whispered the star. So they climbed up the mountain and asked politely.", "At last they asked the moon. \"Send me your wish,\" said the moon, \"and I will let down a silver thread.\"")
    s.say("And so the little star was carried up, higher and higher, until it was in its place again.", "Up and up went the star, and it grew brighter all the way. \"Thank you!\" it called. \"Look up every night, and I will [wink|wave] at you.\"")
    s.say("Every night after that, {h} looked out of the window. One star was always a little brighter than the others, and it [winked|twinkled] just for {h.o}.", "And if you look at the sky tonight, you may see it. It is the one that [winks|dances a little].")
    s.facts["What fell from the sky?"] = "A little star fell from the sky."
    s.facts["How did the star get home?"] = "{H} helped it, and it was carried back up to the sky."
    ending(s, "even someone small can help a star.", "kindness shines for a long time.")


def mystery(s):
    s.choose([("the pie on the window", "crumbs", "pie"), ("the milk in the blue jug", "white drops", "milk"), ("the big jar of honey", "sticky footprints", "honey"), ("the basket of cherries", "little cherry stones", "cherries"), ("the cheese in the kitchen", "tiny bits of cheese", "cheese")], "loot", "trace", "food")
    s.theme = s.fill("about a mystery")
    s.say("{Time}, something strange happened: {loot} was gone! \"Who did this?\" asked {h.fam}.", "\"Someone has taken {loot}!\" [cried|said] {h.fam} one morning.")
    s.say("\"I will find out,\" said {h}. {H.s} put on a big hat and took a magnifying glass, for {h.s} wanted to be a detective.", "{H} loved mysteries. \"Do not touch anything,\" {h.s} said. \"I must look for clues.\"")
    s.par()
    s.say("First {h} asked {a}, a {a.desc}. \"Not me,\" said {a}. \"I was asleep all morning.\" Then {h.s} asked {b}, a {b.desc}. \"Not me,\" said {b}. \"I do not even like {food}.\"", "\"Was it you?\" {h} asked {a}, a {a.desc}. \"No,\" said {a}, \"but I heard small steps in the night.\"")
    s.say("Then {h} saw something on the floor: {trace}. They led across the room, out of the door and over the grass. {H} followed them, [nose to the ground|very quietly].", "{H} looked closely. There were {trace} on the ground. \"Aha!\" {h.s} said, and followed them [around the house|through the garden].")
    s.say("The trail ended behind the shed. There sat {f}, a {f.desc}, with three little ones. \"Oh,\" said {f}, and {f.p} face turned red.", "Behind a bush, {h} found {f}, a {f.desc}, wiping {f.p} mouth.")
    s.say("\"I am sorry,\" said {f}. \"We were so hungry, and it smelled so good. I [should have asked|did not know whom to ask].\"", "\"Please do not be angry,\" said {f}. \"I only wanted to taste a little, and then it was all gone.\"")
    s.say("{H} thought about it. \"Taking things is not right,\" {h.s} said. \"But you can help us make a new one, and then we will all eat together.\"", "\"Next time, just knock on the door,\" said {h}. \"There is always some for a guest.\"")
    s.say("And so they did. The new {food} was even better. \"Case closed,\" said {h}, and took off the big hat.", "Everyone had to laugh. \"You are a good detective,\" they said, \"and a kind one.\"")
    s.facts["What was missing?"] = "{Loot} was missing."
    s.facts["Who had taken {loot}?"] = "It was {f}, a {f.desc}, who was hungry."
    ending(s, "it is better to ask than to take.", "someone who does wrong may just need help.")


def little_robot(s):
    s.choose([("paint", "mixed every color by mistake and got only brown", "painted a small blue bird that looked ready to fly"), ("laugh", "said ha, ha, ha, and it sounded like a broken clock", "fell into a pile of leaves, and suddenly a real laugh came out"),
              ("sing", "beeped so loudly that the birds flew away", "hummed a soft tune, and the birds came back to listen"), ("dance", "took three steps and fell over with a clang", "turned and turned like a leaf in the wind"),
              ("make friends", "shook hands so hard that everyone said ouch", "sat down next to someone who was sad and just listened")], "wish", "fail", "success")
    s.choose([(name,) for name in "Bolt Beep Tik Robo Gizmo Sprocket Zip Dot Rivet".split()], "r")
    s.theme = s.fill("about a robot")
    s.out.clear()
    s.say("[Once upon a time|Once|In a town not far from here], there was a little robot named {r}. {R} had [round green eyes|two wheels and one antenna|a tin belly with a red button] and lived in [a workshop|an old garage|a lighthouse].", "{R} was a small robot. It could count to a million, and it could carry heavy boxes.")
    s.say("{R} could do many things. It could [sweep the floor|sort screws|peel potatoes], and it could [add big numbers|tell the time|boil eggs]. But it could not {wish}, and that was what it wished for most.", "But there was one thing that {r} wanted more than anything: it wanted to learn to {wish}.")
    s.say("\"Robots do not {wish},\" said the old clock on the wall. \"They work.\" {R} was sad. A drop of oil rolled down its cheek.")
    s.par()
    s.say("{Time}, {r} met {h}, a {h.desc}. \"Can you teach me to {wish}?\" asked {r}. \"I can try,\" said {h}.", "{Time}, a {h.desc} named {h} looked in at the door. \"Why do you look so sad?\" asked {h}. \"I want to {wish},\" said {r}.")
    s.say("At first, {r} {fail}. \"Error,\" said {r}. \"Error, error.\" \"That is not an error,\" said {h}. \"That is how you learn.\"", "They tried. {R} {fail}. {H} smiled. \"That was a good start,\" {h.s} said.")
    s.say("They tried every day. [The old clock shook its hands|Rain came, and they tried under the roof]. And then, one evening, {r} {success}.", "Days went by. {R} made a hundred mistakes and remembered every one of them. And one day, {r} {success}.")
    s.say("{H} clapped {h.p} {h.hands}. \"You did it!\" Inside {r}, something grew warm. \"What is this feeling?\" asked {r}. \"That is joy,\" said {h}.", "\"Now I know,\" said {r}. \"It was not in my manual. It was in my heart.\" \"Do robots have hearts?\" asked {h}. \"I think so,\" said {r}. \"It goes tick, tick, tick.\"")
    s.facts["What did {r} want to learn?"] = "{R} the robot wanted to learn to {wish}."
    s.facts["Who helped {r}?"] = "{H}, a {h.desc}, helped {r}."
    ending(s, "mistakes are how we learn.", "you can become more than others think.")


RIDDLES = [("What has hands but cannot clap?", "a clock"), ("What has teeth but cannot bite?", "a comb"), ("What gets wetter the more it dries?", "a towel"), ("What goes up but never comes down?", "your age"), ("What has a neck but no head?", "a bottle"),
           ("What has keys but opens no doors?", "a piano"), ("What can you catch but never throw?", "a cold"), ("What is full of holes but still holds water?", "a sponge"), ("What has one eye but cannot see?", "a needle"), ("What has legs but cannot walk?", "a table"),
           ("What belongs to you, but others use it more than you do?", "your name"), ("What runs but has no legs?", "a river"), ("What can you break without touching it?", "a promise"), ("What has many leaves but is not a tree?", "a book"), ("What follows you by day and leaves you at night?", "your shadow"),
           ("What gets bigger the more you take away from it?", "a hole"), ("What has ears but cannot hear?", "a field of corn"), ("What has a bed but never sleeps?", "a river"), ("What comes down but never goes up?", "rain"), ("What has a face but no eyes or mouth?", "a clock")]


def riddle_king(s):
    riddles = s.rng.sample(RIDDLES, 2)
    s.choose([("king",), ("queen",)], "ruler")
    s.set(rs="he" if s.env["ruler"] == "king" else "she", rp="his" if s.env["ruler"] == "king" else "her", q1=riddles[0][0], a1=riddles[0][1], q2=riddles[1][0], a2=riddles[1][1])
    s.theme = s.fill("about a {ruler} and a riddle")
    s.say("In the same land lived a {ruler} who loved riddles. \"Whoever can answer my riddles,\" said the {ruler}, \"may ask me for anything.\"", "Now the {ruler} of that land was [bored|sad]. \"Whoever brings me a good answer,\" {rs} said, \"may have one wish.\"")
    s.say("Many came, the rich and the wise, [with long beards and big books|in fine clothes]. But no one knew the answers.", "Wise men came from far away. They thought for days and went home again.")
    s.say("Then {h} stood before the throne. The people laughed, but the {ruler} raised a hand. \"Listen well,\" {rs} said. \"{q1}\"", "{H} heard of it and walked all the way to the castle. \"You?\" said the guard. \"Well, you can try.\" The {ruler} asked: \"{q1}\"")
    s.say("{H} smiled. \"That is {a1},\" {h.s} said.", "{H} closed {h.p} eyes for a moment. \"It is {a1},\" {h.s} said.")
    s.say("\"Right!\" cried the {ruler}. \"But here is another one: {q2}\" {H} looked out of the window and thought. \"{A2}!\" {h.s} answered.", "The {ruler} sat up. \"Good! Now tell me this: {q2}\" It was very quiet. Then {h} said, \"{A2}.\" And that was right too.")
    s.par()
    s.say("\"You have won,\" said the {ruler}. \"What do you wish for? Gold? A castle?\" \"No,\" said {h}. \"I wish for [a school for all the children|bread for everyone who is hungry|a new bridge over the river|a garden that is open to all].\"", "The {ruler} laughed for the first time in years. \"Ask for anything!\" {H} thought. \"Then please [open the castle garden to everyone|build a house for those who have none|let the bells ring for joy today].\"")
    s.say("The {ruler} was silent for a while. \"You are not only clever,\" {rs} said. \"You are also kind.\" And so it was done.", "Everyone was surprised, and the {ruler} most of all. {Rs} took {h} by the {h.hand} and said, \"Come often, and bring me new riddles.\"")
    s.facts["What did the {ruler} love?"] = "The {ruler} loved riddles."
    s.facts["Who answered the riddles?"] = "{H} answered the riddles."
    ending(s, "a clever head is good, and a kind heart is better.", "wisdom can come from the smallest.")


def greedy(s):
    s.choose([("apples", "the old apple tree", "a branch broke"), ("nuts", "the hollow tree", "the bag burst, and everything rolled down the hill"), ("honey", "the bees' tree", "the bees came out and chased {h.o} into the pond"), ("berries", "the berry bushes", "the basket was so heavy that it fell into the stream"),
              ("cookies", "the cookie jar", "{h.p} {h.hand} was so full that it would not come out of the jar")], "goods", "source", "mishap")
    s.theme = s.fill("who wants too much")
    s.say("{Time}, {h} found {source}, full of {goods}. \"All mine!\" {h.s} said.", "{Time}, {h} came to {source}. There were such sweet {goods} that {h.s} forgot everything else.")
    s.say("\"Take only what you need,\" said {f}, a {f.desc}. \"Then there is some for tomorrow, and for the others.\" But {h} did not listen. {H.s} took more, and more, and still more.", "{F}, a {f.desc}, came by. \"May I have some too?\" {f.s} asked. \"There is not enough,\" said {h}, and {h.s} stuffed {h.p} bag until it was round.")
    s.say("Then it happened: {mishap}. [Oh dear|Oh no]!", "But {h} wanted just a little more. And then {mishap}.")
    s.par()
    s.say("Now {h} had nothing at all. {H.s} sat on the ground and felt [foolish|ashamed]. {F} came back and did not laugh. \"Come,\" {f.s} said, \"I will help you.\"", "{H} sat there, [wet and dirty|with empty {h.hands}]. \"If only I had listened,\" {h.s} said.")
    s.say("Together they picked up what they could. It was not much, but it was enough for two.", "{F} shared {f.p} own supper with {h.o}. It was small, but it tasted wonderful.")
    s.say("\"Thank you,\" said {h}. \"Next time I will take a little and leave a little.\" And {h.s} kept {h.p} word.")
    s.facts["What did {h} want?"] = "{H} wanted all the {goods}."
    s.facts["What went wrong?"] = "{H} wanted too much, and then {mishap}."
    ending(s, "those who want everything may end up with nothing.", "enough is as good as a feast.", "it is wise to take only what you need.")


def mother_search(s):
    s.choose([("duckling", "quack", "swims on the pond and has orange feet", "duck"), ("kitten", "meow", "has soft fur and long whiskers", "cat"), ("puppy", "woof", "wags her tail and barks", "dog"), ("lamb", "baa", "has white wool and eats grass", "sheep"), ("calf", "moo", "has big ears and gives milk", "cow"), ("chick", "peep", "has feathers and sits on eggs", "hen"),
              ("cub", "grr", "is big and brown and loves honey", "bear"), ("foal", "neigh", "has a long mane and runs like the wind", "horse"), ("piglet", "oink", "has a curly tail and loves mud", "pig")], "baby", "cry", "looks", "mother")
    others = s.rng.sample([("owl", "I have big eyes, but I am not your mother"), ("frog", "I am green and I live in the water, but I am not your mother"), ("hedgehog", "I have needles, so I am not the one"), ("crow", "I can fly, but I cannot say {cry}"), ("turtle", "I carry my house on my back, so I am not the one"), ("rabbit", "I have long ears, but I am not your mother"), ("squirrel", "My tail is bushy, but I am not your mother")], 3)
    s.theme = s.fill("about a {baby} that looks for its mother")
    s.out.clear()
    s.say("[Once upon a time|Once|One day], a little {baby} [woke up and was all alone|ran after a butterfly and got lost]. \"{Cry}!\" it said. \"Where is my mother?\"", "[Once upon a time|Once|Long ago], there was a little {baby} that could not find its mother.")
    s.say("It went [out into the world|down the path] to look for her.")
    s.par()
    for who, answer in others:
        s.set(who=who, answer=answer)
        s.say("It met a {who}. \"Are you my mother?\" asked the {baby}. \"No,\" said the {who}. \"{Answer}.\"", "Then it came to a {who}. \"Please, are you my mother?\" The {who} shook its head. \"{Answer}.\"")
    s.par()
    s.say("The {baby} sat down and began to cry. \"{Cry}, {cry}!\" Just then, {h}, a {h.desc}, came along. \"What does your mother look like?\" asked {h}.", "The little {baby} was very tired. {H}, a {h.desc}, found it under a bush. \"Do not cry,\" said {h}. \"Tell me about your mother.\"")
    s.say("\"She {looks},\" said the {baby}. \"Then I know her!\" said {h}. \"She is a {mother}, and she is looking for you [everywhere|by the river|behind the hill].\"")
    s.say("They ran together. And there she was! \"My little one!\" cried the {mother}. The {baby} ran to her as fast as it could, and {h} felt warm inside.", "{H} took the {baby} along, and soon they heard a loud call. It was the {mother}! The {baby} cuddled up to her. \"{Cry},\" it said happily.")
    s.facts["Who was looking for its mother?"] = "A little {baby} was looking for its mother."
    s.facts["Who was the mother?"] = "The mother was a {mother}."
    ending(s, "when you are lost, keep asking for help.", "there is no place like the arms of your mother.")


def cried_wolf(s):
    s.choose([("a wolf is coming", "watched the sheep", "the wolf", "sheep"), ("there is a fire", "watched the oven of the baker", "the fire", "bread"), ("the river is flooding", "watched the river", "the flood", "boats")], "alarm", "job", "danger", "goods")
    s.theme = s.fill("who does not tell the truth")
    s.say("Every day {h} {job}. It was [quiet|boring] work. \"I want something to happen,\" said {h}.", "{H} had an important job: {h.s} {job}. But {h.s} was bored.")
    s.say("So {h} shouted, \"Help! Help! {Alarm}!\" Everyone came running, with {f}, a {f.desc}, in front. But there was nothing. {H} laughed. \"It was only a joke!\"", "\"Help, {alarm}!\" {h} cried, just for fun. {F}, a {f.desc}, and all the others dropped everything and came. When they saw that it was not true, they were angry.")
    s.say("\"Do not do that again,\" said {f}. But the next day {h} did it again. Again they came, and again there was nothing.", "\"That was not funny,\" said {f}. Yet a few days later {h} played the same trick once more.")
    s.par()
    s.say("And then, one evening, it was true. {H} saw {danger} with {h.p} own eyes. \"Help!\" {h.s} shouted. \"{Alarm}! This time it is real!\"", "Then {danger} really came. {H} screamed for help as loud as {h.s} could.")
    s.say("But no one came. \"[It is just another joke|That is only {h} again],\" they said and went on [eating|sleeping|working].", "Everyone heard it, but nobody believed it.")
    s.say("By the next morning, much was lost. {H} wept. \"Why did no one come?\" \"Because you did not tell the truth before,\" said {f} [softly|and sat down beside {h.o}].", "Only {f} came in the end, and together they saved what they could. \"I came because I am your friend,\" said {f}. \"But you must never lie like that again.\"")
    s.say("{H} promised it, and this time {h.s} meant it. [It took a while|It took all summer] until people trusted {h.o} again.")
    s.facts["What did {h} shout?"] = "{H} shouted, \"Help! {Alarm}!\""
    s.facts["Why did no one come?"] = "No one came because {h} had lied before."
    ending(s, "if you lie too often, no one believes you when you tell the truth.", "trust is easy to lose and hard to win back.")


def winter_store(s):
    s.theme = s.fill("about getting ready for winter")
    s.say("All summer long, {f}, a {f.desc}, worked hard. {F.s} gathered food and carried it home[, one piece after another|]. \"Come and play!\" called {h}. \"Winter is far away.\"", "It was summer. {H} lay in the sun and sang. {F}, a {f.desc}, walked by with a heavy load. \"Why do you work so much?\" asked {h}.")
    s.say("\"I am getting ready for winter,\" said {f}. \"You should do it too.\" But {h} only [laughed|yawned|went on singing].", "\"Winter will come,\" said {f}. \"It always does.\" \"Tomorrow,\" said {h}. \"I will begin tomorrow.\"")
    s.par()
    s.say("The leaves turned red and fell. The wind grew cold. And one morning, the world was white. {H} looked into {h.p} cupboard. It was empty.", "Autumn came, and then winter. There was ice on the pond, and {h} had nothing to eat and no wood for the fire.")
    s.say("{H.x} shivered. \"If only I had listened,\" {h.s} said. At last {h.s} went through the snow and knocked on {f}'s door.", "Cold and hungry, {h} knocked at the door of {f}. \"I was foolish,\" {h.s} said[ with a small voice|].")
    s.say("{F} looked at {h.o} for a while. Then {f} opened the door wide. \"Come in,\" {f.s} said. \"There is enough for two. But next summer, we work together.\"", "\"Come in and get warm,\" said {f}. \"I have food, and you have songs. The winter is long, and I like music.\"")
    s.say("So they spent the winter together. {H} sang and told stories by the fire, and {f} cooked soup. It was not a cold winter at all.", "All winter long, {h} helped in the house and sang in the evenings. And when summer came, {h} was the first to start working.")
    s.facts["What did {f} do all summer?"] = "{F} worked hard and gathered food for the winter."
    s.facts["Who helped {h} in the winter?"] = "{F} helped {h}."
    ending(s, "it is good to think of tomorrow.", "work and play both have their time.", "a good friend opens the door.")


def outing(s):
    s.choose([("the sea", "the train", "collected shells, built a castle of sand and ran from the waves", "a starfish", "The sea is bigger than I thought"), ("the zoo", "the bus", "saw the lions sleep, the monkeys swing and the penguins march", "a baby elephant", "I wish we could take one home"),
              ("the mountains", "an old red bus", "climbed over rocks, drank from a cold stream and ate lunch above the clouds", "a marmot", "From here the houses look like toys"), ("the big city", "the morning train", "rode in a lift, fed the pigeons and got lost in a toy shop", "a man who played three drums at once", "There are so many windows"),
              ("the fair", "a wagon", "rode on the carousel, threw rings and ate sugar clouds", "a clown with a sad face who could juggle seven balls", "My head is still turning"), ("the farm", "bicycles", "fed the goats, found warm eggs and jumped in the hay", "a calf that was only one day old", "It licked my hand")], "goal", "ride", "did", "saw", "quote")
    s.theme = s.fill("about a trip to {goal}")
    s.say("{H} could not sleep, because the next day they would go to {goal}. {H.s} had packed {h.p} bag three times already.", "\"Today we are going to {goal},\" said {h.fam}. {H} jumped so high that {h.s} almost hit the lamp.")
    s.say("{F}, a {f.desc}, came along too. They took {ride}, and {h} looked out the whole way. \"Are we there yet?\" {h.s} asked. \"Not yet,\" said {f}. \"Are we there now?\" \"Not yet.\"", "Early in the morning they took {ride}. {F}, a {f.desc}, sat next to {h}, and they sang all the songs they knew.")
    s.par()
    s.say("And then they were there. {H} opened {h.p} eyes wide. \"{Quote},\" {h.s} said.", "At last they arrived. It smelled different there, and everything was new.")
    s.say("They {did}. But the best thing of all was {saw}.", "All day long they were busy: they {did}. And they saw {saw}!")
    s.say("Only once was {h} scared: when {h.s} turned around, {f} was gone. {H.x} looked left and right. Then {f} came from behind a corner with {treat} for both of them.", "At noon they sat down and ate {treat}. A [bird|small dog] came and looked at them with hungry eyes, so they shared a little.")
    s.say("On the way home, {h} was so tired that {h.s} fell asleep with {h.p} head on {f}'s shoulder.", "When the sun was red, they had to go home. \"Can we come again?\" asked {h}. \"Of course,\" said {h.fam}.")
    s.say("That night {h} dreamed of {goal}, and in the dream a voice said, \"See you soon.\"", "At home, {h} put a small stone from {goal} beside the bed, so that {h.s} would never forget that day.")
    s.facts["Where did they go?"] = "They went to {goal}."
    s.facts["What was the best thing they saw?"] = "The best thing was {saw}."
    ending(s)


TALE_PLOTS = [quest, trade_chain, feared_one, wishes, race, lost_in_forest, treasure, star, mystery, riddle_king, greedy, cried_wolf, winter_store, outing]
OWN_OPENING_PLOTS = [small_and_big, little_robot, mother_search]   # these begin in their own way
