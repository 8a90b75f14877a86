"""Plots of everyday life: things lost and found, friends, fears, gardens, birthdays, weather."""

from grammar import chance
from story import ending, interlude, meet_friend, scene
from world import PLACES

LOSSES = [  # how it went; where it was; what it was doing there; whom to ask
    ("a strong wind took {o} away", "high in a tall tree", "a bird had lined its nest with it"),
    ("there was a hole in {h.p} bag", "under a bush by the path", "two beetles were sleeping in it"),
    ("{h.s} had put it down to pick flowers and walked away", "between the flowers", "a bee was sitting on it"),
    ("it fell into the stream and floated off", "by the bridge, caught in the reeds", "a frog was sitting on it like a king"),
    ("a magpie saw it shine and carried it away", "in a nest on the old tower", "it lay among spoons and bits of glass"),
    ("{h.s} had lent it to the wind, as {h.s} said later, and the wind never gave it back", "on the roof of the barn", "a cat was using it as a bed"),
    ("it rolled down the hill and out of sight", "at the bottom of the hill, in the tall grass", "a mouse family was having a picnic around it"),
]
SEARCHES = ["{H.x} looked under the bed, but there was only [dust|an old sock|a sleepy spider].", "{H.x} looked behind the [shed|door|big stone], but found only [a snail|a broken pot|some dry leaves].",
            "{H.x} looked in the [hollow tree|long grass|flower pots], but it was not there.", "{H.x} asked {place.who}, but [it had seen nothing|it only shook its head].",
            "{H.x} looked [up and down|left and right|in every corner], and then {h.s} looked again.", "They searched along the path, [step by step|stone by stone], but there was no sign of it."]


def lost_thing(s):
    s.set(o="it")
    s.choose(LOSSES, "cause", "where2", "doing")
    s.theme = s.fill("who loses [{h.p} {toys}|{h.p} {toy}|a {toy}|a {toys}|something]")
    s.say("{H.x} had a {toys}. [{H.s} loved it more than anything|It was {h.p} favorite thing in the world|{H.fam} had given it to {h.o}], and {h.s} liked to {toy.use}.",
          "The thing {h} loved best was {h.p} {toys}. {H.s} could {toy.use} all day.", "For {h.p} birthday, {h} got a {toys}. [{H.s} took it everywhere|It was just what {h.s} had wished for].")
    s.maybe(0.5, "\"I will never lose you,\" {h.s} told it[ every night|].", "{H.s} even gave it a name.")
    s.par()
    s.say("{Time}, {h} went to {place}.", "But {time}, something bad happened.", "{Time}, {h} took the {toy} to {place}.")
    scene(s)
    s.say("When {h.x} wanted to go home, the {toy} was gone! [It was nowhere to be seen|{H.s} turned around and around]. {H.p} eyes filled with tears.",
          "Then {h.x} looked down and {h.p} {h.hands} were empty. \"Where is my {toy}?\" {h.s} cried.", "Suddenly {h.x} stopped. \"My {toy}!\" {h.s} cried. \"It is gone!\"")
    for line in s.rng.sample(SEARCHES, 2 if chance(s.rng, 0.6) else 3):
        s.say(line)
    s.par()
    s.say("Just then, {f}, a {f.desc}, came by. \"Why are you [crying|so sad]?\" asked {f}.", "{H} sat down on a stone and sighed. A {f.desc} named {f} heard {h.o}. \"What is wrong?\" {f.s} asked.",
          "\"Do not cry,\" said a voice. It was {f}, a {f.desc}. \"What did you lose?\"")
    s.say("\"I lost my {toys},\" said {h}. \"I will help you look,\" said {f}. \"[Two see more than one|Four eyes are better than two|Together we will find it].\"",
          "{H} told {f.o} everything. {F} thought for a moment. \"[Come with me|I have an idea|Let us go back the way you came],\" {f.s} said.")
    interlude(s, 0.3)
    s.say("They walked [back along the path|through the grass|here and there], and {f} [looked high while {h} looked low|sniffed the air|looked very carefully].", "So the two of them searched together.")
    s.say("And there it was, {where2}! You see, {cause}, and now {doing}.", "At last {f} pointed. \"Look!\" The {toy} was {where2}, and {doing}.", "Then {h} saw something {toy.adj} {where2}. It was the {toy}, and {doing}!")
    s.say("{H} [laughed|had to laugh] and [took it back gently|waited politely until it was free]. {H.s} hugged the {toy} and then {h.s} hugged {f}.",
          "\"Thank you, thank you!\" said {h}, and {h.s} [danced in a circle|jumped up and down]. {F} [smiled|was happy too].")
    s.say("\"You can play with it too,\" said {h}. So they took turns [until it was dark|all afternoon].", "After that, {h} always [tied the {toy} with a string|looked after the {toy} with great care|checked {h.p} bag twice].",
          "To thank {f.o}, {h} shared {treat} with {f}.")
    s.facts["What did {h} lose?"] = "{H} lost {h.p} {toys}."
    s.facts["Where was the {toy}?"] = "The {toy} was {where2}."
    s.facts["Who helped {h}?"] = "{F}, a {f.desc}, helped {h}."
    ending(s, "it is easier to find things when friends help.", "a friend who helps is worth more than any {toy}.", "when you are sad, it helps to tell someone.")


STUCK = [  # who; where; first try and why it failed; clever idea
    ("kitten", "at the top of a tall tree", "{H} tried to climb up, but the branches were too thin", "They held a blanket by its corners, and the kitten jumped right into the middle"),
    ("duckling", "between two stones in the stream", "{H} pulled and pulled, but the duckling only quacked louder", "They used a long stick to lift one of the stones, and the duckling slipped out"),
    ("little goat", "on a narrow ledge of the hill", "{H} called its name, but it was too afraid to move", "They laid a trail of fresh grass, and the little goat followed it step by step"),
    ("baby bird", "on the ground under its nest", "{H} tried to reach the nest, but it was much too high", "They put the baby bird in a basket and pulled it up with a rope"),
    ("hedgehog", "in a deep hole", "{H} reached down, but the hole was too deep", "They put a wide board into the hole, and the hedgehog walked up it like a ramp"),
    ("puppy", "on a log in the middle of the pond", "{H} threw a rope, but the puppy did not know what to do with it", "They built a small raft out of branches and pushed it across the water"),
    ("lamb", "in a thorny bush", "{H} pulled at the thorns, but they only got more tangled", "They covered the thorns with a thick coat and cut the branches one by one"),
    ("butterfly", "in a big spider web", "{H} blew on the web, but the web was too strong", "They wet the threads with drops of water, and the web let go"),
    ("turtle", "on its back on the hot sand", "{H} pushed with all {h.p} strength, but the turtle was too heavy", "They dug the sand away on one side, and the turtle rolled over onto its feet"),
]
STUCK_PLACES = {"kitten": "the orchard", "duckling": "the river", "little goat": "the hill", "baby bird": "the forest", "hedgehog": "the garden", "puppy": "the pond",
                "lamb": "the meadow", "butterfly": "the garden", "turtle": "the beach"}


def rescue(s):
    s.choose(STUCK, "who", "spot", "try", "idea")
    row = next(row for row in PLACES if row[0] == STUCK_PLACES[s.env["who"]])
    s.set(place=row[0], place__in=row[1], place__d1=row[2], place__d2=row[3])
    s.theme = s.fill("who [saves|helps|rescues] a {who}")
    meet_friend(s)
    s.par()
    s.say("{Time}, {h} and {f} were walking {place.in}.", "{Time}, the two friends went to {place}.", "{Time}, {h} and {f} were playing {place.in}.")
    scene(s)
    s.say("Suddenly they heard a [small|tiny|sad] voice. \"Help! Help!\" It was a {who}, stuck {spot}.", "Then {h} stopped. \"Did you hear that?\" They looked around and saw a {who} {spot}. It could not get [away|home].",
          "There, {spot}, was a {who}. It [was shaking with fear|looked at them with big wet eyes].")
    s.say("\"We must help it,\" said {h}.", "\"Poor little thing,\" said {f}. \"What can we do?\"", "\"Do not be afraid,\" {h} called. \"We will help you!\"")
    s.par()
    s.say("{Try}. \"This does not work,\" said {f}.", "First, {try}. \"Oh dear,\" said {h}. \"We need another plan.\"", "{Try}. They sat down and thought [hard|for a long time].")
    s.say("Then {h} had an idea. {Idea}.", "Then {f}'s eyes grew bright. \"I know!\" {f.s} said. {Idea}.", "\"What if we try it another way?\" asked {h}. {Idea}.")
    s.say("The {who} was free! It [jumped for joy|shook itself and looked around|thanked them again and again].", "At last the {who} was safe. \"Thank you,\" it said in a small voice. \"I was so scared.\"")
    s.maybe(0.6, "\"Where is your home?\" asked {h}. They took the {who} back to its mother, who [cried happy tears|gave them {treat}|thanked them from the bottom of her heart].",
            "The {who} came to visit them every day after that.", "The next morning, there was [a small present|a bunch of flowers|a shiny stone] at {h}'s door. It was from the {who}.")
    s.facts["Who was stuck in the story?"] = "A {who} was stuck {spot}."
    s.facts["How did they save the {who}?"] = "{Idea}."
    ending(s, "if one way does not work, you can try another.", "helping others makes your own heart glad.", "good ideas come when you stay calm.", "no one is too small to need help, or to give it.")


def sharing(s):
    s.theme = s.fill("who [learns to share|does not want to share|learns to share {treat}]")
    s.say("{Time}, {h.fam} gave {h} {treat}. It [smelled wonderful|looked delicious|was still warm].", "{Time}, {h} had {treat} all to {h.r}. {H.s} could not wait to eat it.", "{Time}, {h} sat {place.in} with {treat}.")
    s.say("{F}, a {f.desc}, came along. \"That looks good,\" said {f}. \"May I have a little?\"", "Along came {f}, a {f.desc}. {F.s} had not eaten all day. \"Could you share with me?\" {f.s} asked.")
    s.say("\"No,\" said {h}. \"[It is mine|There is not enough for two|I want it all for myself].\"", "{H} held it tight. \"No,\" {h.s} said. \"I do not want to share.\"")
    s.say("{F} [said nothing and walked away|looked down and went away slowly|sighed and sat under a tree].")
    s.par()
    s.say("{H} took a bite. But [somehow|] it did not taste as good as before. {H.s} kept thinking of {f}.", "{H} ate a little, but it was no fun to eat alone. {H.s} felt bad [in {h.p} stomach|inside].",
          "{H} looked at the food and then at {f}. {H.p} heart felt heavy like a stone.")
    s.maybe(0.5, "\"If I were hungry,\" {h.s} thought, \"I would want someone to share with me.\"", "{H.s} remembered the day when {f} had helped {h.o} [cross the stream|carry a heavy basket|find the way home].")
    s.say("So {h} got up and ran after {f}. \"Wait!\" {h.s} called. \"I am sorry. [Please eat with me|Half of it is for you|Come and share it with me].\"",
          "Then {h} stood up. {H.s} broke everything into two parts and gave {f} the bigger one. \"I am sorry that I was selfish,\" {h.s} said.")
    s.say("{F} smiled [from ear to ear|a wide smile]. They sat down together, and now it tasted [better than ever|twice as good|like the best thing in the world].", "They ate together {place.in}. They laughed and talked until [the last bit|everything] was gone.")
    s.maybe(0.6, "The next day, {f} came back with [a basket of berries|a bag of nuts|sweet pears|fresh bread]. \"Now it is my turn to share,\" {f.s} said.")
    s.facts["What did {h} have to eat?"] = "{H} had {treat}."
    s.facts["Did {h} share in the end?"] = "Yes. {H} shared with {f}."
    ending(s, "food tastes better when it is shared.", "sharing makes friends.", "a small gift can make a big friend.", "when you share, there is more joy for everyone.")


FEARS = [
    ("the dark", "When the light went out, {h.s} saw strange shapes on the wall", "The strange shapes were only a chair, a coat and an old hat", "looked at the shapes with a small lamp"),
    ("water", "While the others splashed and swam, {h.s} stayed on dry land", "The water was cool and soft, and it carried {h.o} like a big hand", "put one foot in, and then the other"),
    ("thunder", "When the sky growled, {h.s} hid under the bed", "Thunder was only the sky clapping its hands", "counted the seconds between the flash and the boom"),
    ("high places", "When the others climbed the old tree, {h.s} stayed at the bottom", "From the top one could see the whole valley, and it was beautiful", "climbed one branch higher every day"),
    ("speaking in front of others", "When everyone looked at {h.o}, {h.p} voice ran away", "The words came out, first softly and then loud and clear", "told the story to a single flower, then to two, and then to a whole meadow"),
    ("the old house on the hill", "Everyone said that a ghost lived there", "There was no ghost at all, only an old woman with six cats who was happy to have visitors", "walked up to the door and knocked three times"),
    ("deep snow", "{H.s} thought that {h.s} would sink and never come out", "The snow held {h.o} up, and sliding down the hill was the best fun in the world", "took small steps in the footprints of the others"),
    ("going to school for the first time", "{H.s} did not know anyone there", "The teacher was kind, and there was a place by the window just for {h.o}", "said hello to one new face, and then to another"),
    ("big dogs", "Whenever a dog barked, {h.s} ran the other way", "The big dog only wanted to play, and its tail wagged like a flag", "held out a {h.hand} and waited, very quietly"),
]


def fear(s):
    s.choose(FEARS, "fear", "how", "truth", "step")
    s.theme = s.fill("who is [afraid|scared] of {fear}")
    s.say("But there was one thing: {h} was afraid of {fear}. {How}.", "{H} was not afraid of much, but {h.s} was afraid of {fear}. {How}.", "Only one thing made {h} tremble, and that was {fear}. {How}.")
    s.maybe(0.5, "{H.s} did not tell anyone, because {h.s} thought that [they would laugh|no one would understand].", "The others sometimes teased {h.o}, and that made it worse.")
    s.par()
    s.say("{Time}, {f}, a {f.desc}, asked, \"Why do you look so worried?\"", "{H}'s friend {f}, a {f.desc}, saw that something was wrong. \"You can tell me,\" {f.s} said.")
    s.say("\"I am afraid of {fear},\" [whispered|said] {h}[, and {h.p} ears grew red| very quietly|].")
    s.say("{F} did not laugh. \"Everyone is afraid of something,\" {f.s} said. \"I was afraid too[, once|]. [Shall we try together|Let us take one small step|I will hold your {h.hand}].\"",
          "\"Being brave does not mean that you are not afraid,\" said {f}. \"It means that you try [anyway|even so]. I will stay with you.\"")
    s.par()
    s.say("So {h} took a deep breath. {H.s} {step}. {F} stayed [close by|right beside {h.o}].", "It was not easy. The first time, {h} ran away. But the next day {h.s} came back and {step}.", "{H}'s heart went bump, bump, bump. But {h.s} {step}, and nothing bad happened.")
    s.say("And what did {h.s} find? {Truth}.", "Then {h.x} began to smile. {Truth}.", "\"Oh!\" said {h}. {Truth}.")
    s.say("\"I did it!\" {h} [shouted|cried|sang]. {F} clapped and cheered.", "{H} felt as tall as a tree. \"You see?\" said {f}. \"You were brave all along.\"")
    s.facts["What was {h} afraid of?"] = "{H} was afraid of {fear}."
    s.facts["Who helped {h} to be brave?"] = "{F}, a {f.desc}, helped {h}."
    ending(s, "being brave means trying even when you are afraid.", "big fears grow small when you look at them closely.", "with a friend at your side, you can do hard things.")


BROKEN = [("{h.mum}'s blue vase", "was running through the house", "vase"), ("the big window", "was kicking a ball", "window"), ("{h.mum}'s favorite cup", "was reaching for the cookies", "cup"),
          ("the old clock", "was swinging on the curtain", "clock"), ("the flower pots", "was racing around the corner", "flower pots"), ("grandfather's fishing rod", "was playing that it was a sword", "fishing rod"),
          ("the jar of honey", "was dancing on the table", "jar")]


def truth(s):
    row = s.choose(BROKEN, "broken", "doing", "what")
    s.set(it="them" if row[2] == "flower pots" else "it")
    s.theme = s.fill("who breaks something and tells the truth")
    s.say("{Time}, {h} {doing}. [Crash|Bang|Oh no]! {H.x} had broken {broken}.", "{H.fam} had often said, \"Please be careful.\" But {time}, {h} {doing}, and then there was a loud crash. Now {broken} lay in pieces on the floor.")
    s.say("{H.p} heart beat fast. {H.s} [pushed the pieces under the rug|hid the pieces behind the door|covered the pieces with a blanket] and ran outside.", "\"No one saw me,\" {h.x} thought, and {h.s} [hid the pieces|tiptoed away].")
    s.par()
    s.say("But {h} could not [play|laugh|enjoy the day]. [Even {h.food} did not taste good|The sun was shining, but {h.s} did not see it]. There was a [knot|heavy feeling] in {h.p} stomach.", "All day long {h} felt [bad|terrible]. When {h.fam} smiled at {h.o}, it was even worse.")
    s.say("{H.x} asked {f}, a {f.desc}, what to do. \"[The truth is like a stone in your shoe|A lie grows bigger every hour],\" said {f}. \"[You walk better when it is out|So tell the truth while it is small].\"", "\"You look sad,\" said {f}, a {f.desc} and {h.p} friend. {H} told {f.o} everything. \"Then go and say it,\" said {f}. \"It will be all right.\"")
    s.par()
    s.say("So {h} went home. \"I [have to|must] tell you something,\" {h.s} said. \"I broke the {what}. I am very sorry.\"", "In the evening, {h} could not keep it in any longer. \"It was me,\" {h.s} said with tears in {h.p} eyes. \"I broke the {what}, and I hid {it}.\"")
    s.say("{H.mum} looked at {h.o} for a long moment. Then she took {h.o} in her arms. \"[I am sad about the {what}|Things can break],\" she said, \"but I am [proud|glad] that you told me the truth.\"",
          "\"Thank you for telling me,\" said {h.mum}. \"A {what} can be fixed. [Trust is harder to fix|What matters is that you were honest].\"")
    s.say("Together they [picked up the pieces|cleaned up|got the glue], and {h} [helped with everything|promised to be more careful]. The heavy feeling was gone.", "{H} felt as light as a feather. The next day, {h.s} helped to [fix everything|buy a new one with {h.p} own coins].")
    s.facts["What did {h} break?"] = "{H} broke the {what}."
    s.facts["Did {h} tell the truth?"] = "Yes. {H} was brave and told the truth."
    ending(s, "telling the truth makes the heart light.", "everyone makes mistakes, but it is important to be honest.", "the truth may be hard to say, but it feels good afterwards.")


GROWS = [("a sunflower", "taller than the fence", "golden"), ("a pumpkin", "as big as a wheel", "orange"), ("a rose bush", "full of sweet flowers", "pink"), ("an apple tree", "with the reddest apples in town", "red"),
         ("a strawberry plant", "with berries as sweet as sugar", "red"), ("a bean plant", "all the way up to the window", "green"), ("a carrot", "so big that no one could pull it out alone", "orange"), ("a tulip", "with a cup so wide that a bee could sleep in it", "yellow")]


def garden(s):
    s.choose(GROWS, "plant", "grown", "color")
    s.theme = s.fill("who [plants a seed|finds a seed|has a garden|grows something big]")
    s.say("{Time}, {h} found a [tiny|small|strange|little brown] seed [on the path|in an old box|under a stone]. \"What will you be?\" {h.s} [asked|wondered].",
          "{Time}, an old [gardener|woman|man] gave {h} a seed. \"Take good care of it,\" [were the words that came with it|said the old voice kindly].")
    s.say("{H.x} dug a hole {place.in}, put the seed inside and covered it with [soft|dark] earth. Then {h.s} [gave it some water|sang it a song|watered it and waited].")
    s.say("The next day, {h} ran to look. Nothing! \"Maybe it is broken,\" said {h}.", "{H.x} waited one day. {H.x} waited two days. Nothing happened. \"Why does it take so long?\" {h.s} [asked|sighed].")
    s.par()
    s.say("\"Dig it up and look,\" said {a}, a {a.desc}. But {f}, a {f.desc}, shook {f.p} head. \"[Good things take time|A seed needs to sleep before it wakes up|Wait and be patient],\" said {f}.", "{F}, a {f.desc}, laughed softly. \"A seed is not a lamp that you can switch on,\" said {f}. \"Give it water, sun and time.\"")
    s.say("So {h} watered the seed every [morning|evening]. {H.s} pulled out the weeds and [chased away the snails|told it stories|kept it warm in the cold nights].", "Every morning {h} came with a can of water. When it was hot, {h.s} gave it shade. When it was cold, {h.s} covered it with leaves.")
    s.say("Then one day, [there was|{h} saw] a tiny green tip. \"[Hello|Good morning], little one!\" {h.x} cried[ with joy|].", "One morning, something green looked out of the earth. {H} [danced for joy|hardly dared to breathe].")
    s.say("Week after week it grew. By the end of summer, it was {plant}, {grown}.", "It grew and grew, and one day it was {plant}, {grown}. Everyone came to see it.")
    s.maybe(0.7, "{H.x} [gave some to everyone in the village|saved new seeds for the next year|invited {f} to a feast under it]. \"[You were right|It was worth the wait],\" said {h}.", "\"You see?\" said {f}. \"Patience is a kind of magic.\"")
    s.facts["What grew from the seed?"] = "{Plant} grew from the seed."
    s.facts["What did {h} plant?"] = "{H} planted a little seed, and it became {plant}."
    ending(s, "good things take time.", "patience and care make things grow.", "even the biggest plant was once a tiny seed.")


def newcomer(s):
    s.theme = s.fill("who [makes a new friend|finds a friend|meets a {f.kind}|makes friends with a {f.kind}]")
    s.say("{Time}, someone new came to {place}. It was a {f.desc} named {f}.", "{Time}, a {f.desc} moved in [next door|down the road|nearby]. {F.p} name was {f}, and {f.s} did not know anyone.")
    s.say("{F} did not [talk much|say a word]. {F.s} sat alone [under a tree|on a bench|by the wall] and looked at the ground.", "{F} [was shy|looked different from the others] and stood at the edge when the others played.")
    s.say("\"{F} is strange,\" said {a}, a {a.desc}. \"{F} never laughs.\" But {h} was not so sure.", "The others whispered, and some of them laughed. {H} did not like that.")
    s.par()
    s.say("{H} walked over and [sat down|said hello]. \"My name is {h},\" {h.s} said. \"[What is your name|What do you like to do|Do you want to play]?\"", "{H} took {h.p} {toys} and went to {f}. \"Would you like to {toy.use}?\" {h.s} asked. \"We can take turns.\"")
    s.say("At first {f} was quiet. Then {f.s} said softly, \"I miss my old home. There I had many friends.\"", "{F} looked up. \"I thought that nobody wanted to talk to me,\" {f.s} said.")
    s.say("\"I would like to be your friend,\" said {h}.", "\"Here you can have a new friend,\" said {h}. \"Me!\"", "{H} thought about how {h.s} would feel in a new place. \"Come,\" {h.s} said. \"I will show you everything.\"")
    s.say("So {h} showed {f} [the best hiding places|the old bridge and the big oak|where the sweetest berries grew]. And soon {f} began to [talk|laugh|smile].", "It turned out that {f} was very good at {f.skill}. {F.s} also loved {f.liking}, and so did {h}.")
    interlude(s, 0.35)
    s.say("[The next day|Soon], the others saw how much fun they had, and they wanted to join in. \"There is room for everyone,\" said {f}.", "When the others saw this, {a} came over. \"I am sorry,\" {a} said. \"May I play too?\" \"Of course,\" said {f}.")
    s.facts["Who was the new friend?"] = "The new friend was {f}, a {f.desc}."
    s.facts["Who was kind to {f}?"] = "{H} was kind to {f}."
    ending(s, "a friendly word can open a closed door.", "a stranger is a friend you do not know yet.", "it is good to be kind to someone who is new.")


def quarrel(s):
    s.choose([("who was faster",), ("whose turn it was",), ("what to build",), ("which way to go",), ("who had found the {toys} first",), ("who should be captain",), ("what to name the boat",)], "about")
    s.theme = s.fill("about two friends who have a fight")
    meet_friend(s)
    s.par()
    s.say("But {time}, they had a fight about {about}. \"I am right!\" said {h}. \"No, I am right!\" said {f}.", "{Time}, {h} and {f} began to argue about {about}. Their voices grew louder and louder.")
    s.say("\"I do not want to play with you [ever again|anymore],\" said {f}[, and {f.s} stamped {f.p} foot|]. \"Fine!\" said {h}. And they went home in two different directions.", "In the end, both were so angry that they turned their backs and walked away.")
    s.par()
    s.say("The next day, {h} played alone. {H.s} tried to {toy.use}, but it was [not the same|no fun]. There was no one to [laugh with|talk to|show things to].", "{H} sat {place.in} and looked at the clouds. One of them looked like {f}. {H} [sighed|felt sad].")
    s.say("On the other side of [the hill|town], {f} was lonely too. {F.s} [ate lunch alone|told a joke to a tree, but the tree did not laugh].", "{F} was not happy either. {F.s} kept looking at the door[, hoping for a knock|].")
    s.say("\"Being right is not so important,\" thought {h}. \"My friend is important.\" So {h.s} [took {treat}|picked some flowers|made a little card] and set off.", "At last {h} stood up. \"I will say that I am sorry,\" {h.s} said [to {h.r}|out loud].")
    s.say("Halfway there, {h.s} saw someone coming. It was {f}, who was on the way to [{h.o}|say sorry too]! \"I am sorry,\" both said at the same time. Then they had to laugh.", "{H} knocked on the door. \"I am sorry that I shouted,\" {h.s} said. \"I am sorry too,\" said {f}. \"I missed you.\"")
    s.say("They hugged[ for a long time|], and soon they were playing again as if nothing had happened.", "\"What was our fight about?\" asked {f}. {H} thought. \"I cannot remember,\" {h.s} said, and they laughed.")
    s.facts["Why did {h} and {f} fight?"] = "They had a fight about {about}."
    s.facts["Did they become friends again?"] = "Yes. They both said sorry and were friends again."
    ending(s, "saying sorry can mend a friendship.", "a friend is more important than being right.", "friends may fight, but good friends make up again.")


def birthday(s):
    s.theme = s.fill("about a birthday")
    meet_friend(s)
    s.par()
    s.say("It was {h}'s birthday. {H.x} woke up early and [jumped out of bed|ran to the window]. But [nobody said anything|no one seemed to remember].", "When {h} woke up on {h.p} birthday, the house was quiet. There was no cake and no song.")
    s.say("{H.x} went to {f}. \"Do you know what day it is?\" asked {h}. \"It is [Monday|Tuesday|Friday|Sunday],\" said {f}. \"And I am [very busy|in a hurry]. Goodbye!\"", "\"Good morning, {f}!\" said {h}. But {f} only said, \"I have to go,\" and ran off [with a big bag|quickly].")
    s.say("Then {h} met {a}, a {a.desc}. \"Is today a special day?\" asked {h}. \"Not that I know,\" said {a}[, and looked away|]. {H} felt [sad|very small].", "All morning, {h} sat {place.in}. \"They forgot me,\" {h.s} whispered. A tear rolled down {h.p} cheek.")
    s.par()
    s.say("In the afternoon, {h} went home [slowly|with a heavy heart]. {H.s} opened the door. It was dark inside. Then suddenly the lights went on.", "When the sun was low, {a} came and said, \"{H}, come quickly, [something is wrong at your house|there is something you must see]!\" {H} ran home as fast as {h.s} could and opened the door.")
    s.say("\"Surprise!\" [they all shouted|shouted many voices]. {F} was there, and {a}, and everyone {h} knew. There were balloons, and there was {treat} with candles.", "\"Happy birthday, {h}!\" they all cried. The room was full of [paper stars|balloons|flowers], and on the table stood {treat}.")
    s.say("\"We wanted to surprise you,\" said {f}. \"That is why I had no time this morning.\" And {f.s} gave {h} a {toys}.", "{F} gave {h.o} a {toys} with a ribbon around it. \"I am sorry that I ran away,\" {f.s} said. \"I am very bad at keeping secrets.\"")
    s.say("{H} laughed and cried at the same time. \"[I thought you had forgotten me|This is the best birthday ever],\" {h.s} said. They [danced and sang|played games|ate and laughed] until late.")
    s.facts["What present did {h} get?"] = "{H} got a {toys} from {f}."
    s.facts["Did the friends forget the birthday?"] = "No. They had planned a surprise for {h}."
    ending(s, "true friends do not forget you.", "sometimes a secret is a kind one.", "the best present is to be loved.")


SKILLS = [("ride a bicycle", "{h.s} fell into a bush", "the wheels went straight and the wind was in {h.p} face"), ("swim", "{h.s} swallowed some water and came up coughing", "{h.s} floated and kicked, all the way to the other side"),
          ("whistle", "only air came out", "a clear high note came out, and a bird answered"), ("play the flute", "it sounded like a goose with a cold", "a soft song rose into the air, and everyone stopped to listen"),
          ("skate on the ice", "{h.s} sat down hard with a bump", "{h.s} glided in a big circle"), ("bake bread", "the bread was as hard as a stone", "the bread came out golden and smelled wonderful"),
          ("tie {h.p} own knots", "the string was tangled like a bird's nest", "the knot held tight, even in a storm"), ("draw a horse", "it looked more like a potato with legs", "the horse looked so real that it seemed to run off the page"),
          ("read", "the letters jumped around like fleas", "the letters stood still and became words, and the words became a story"), ("climb the rope", "{h.s} slid down and landed in the hay", "{h.s} reached the top and rang the little bell"),
          ("dance", "{h.s} stepped on everyone's toes", "{h.p} feet knew the steps all by themselves")]


def practice(s):
    s.choose(SKILLS, "skill", "fail", "success")
    s.theme = s.fill("who [learns|wants to learn|tries] to {skill}")
    s.say("{H} wanted to learn to {skill}. [All the others could do it already|It looked so easy when {f} did it|{H.s} dreamed of it every night].", "More than anything, {h} wished to {skill}.")
    s.say("{Time}, {h.x} tried for the first time. But {fail}. [Everyone laughed|\"Oh no,\" said {h}|It was not a good start].", "The first time, {fail}. The second time was not much better.")
    s.say("\"I will never learn it,\" said {h}. {H.s} [threw {h.r} into the grass|wanted to give up|hid {h.p} face].", "{H} sat down and [looked at the ground|cried a little]. \"It is too hard for me,\" {h.s} said.")
    s.par()
    s.say("{F}, a {f.desc}, sat down next to {h.o}. \"Do you think I could do it on the first day?\" asked {f}. \"I tried [a hundred times|all summer long]!\"", "\"You cannot do it yet,\" said {f}, a {f.desc}. \"Yet is a very important word. Let us practice [a little every day|together].\"")
    s.say("So {h} practiced. On Monday, {h.s} was a little better. On Tuesday, {h.s} was a little worse. On Wednesday, {h.s} was better again.", "Every day after [lunch|breakfast|school], {h} and {f} practiced. {H} made [many mistakes|one mistake after another], but each one was [smaller than the last|a new one].", "Day after day {h} tried again. {F} showed {h.o} how, [slowly and with patience|again and again].")
    interlude(s, 0.3)
    s.say("And then, [one fine day|one bright morning|at the end of the week], it happened: {success}!", "Then came the day when everything was different. {H} tried once more, and {success}.")
    s.say("\"Look! Look!\" cried {h}. \"I can {skill}!\" {F} [jumped for joy|clapped {f.p} {f.hands}|cheered the loudest].", "{H} could hardly believe it. \"I did it!\" {h.s} shouted. {F} smiled, [for {f.s} had known it all along|as proud as could be].")
    s.maybe(0.5, "Later, {a}, a {a.desc}, asked, \"Is it hard to learn?\" \"Yes,\" said {h}. \"But I will help you.\"")
    s.facts["What did {h} learn?"] = "{H} learned to {skill}."
    s.facts["Who helped {h} to learn?"] = "{F}, a {f.desc}, helped {h} to practice."
    ending(s, "you can learn hard things if you keep trying.", "practice makes things easier.", "making mistakes is a part of learning.")


def snow_day(s):
    s.theme = s.fill("about a day in the snow")
    meet_friend(s)
    s.par()
    s.say("One winter morning, {h} looked out and [everything was white|saw that the whole world had turned white]. \"Snow!\" {h.s} [shouted|cried], [and ran outside|pulling on {h.p} scarf].", "It had snowed all night. When {h} opened the door, the snow came up to {h.p} knees.")
    s.say("{F} was already there. \"Let us build a [snowman|snow castle|snow bear],\" said {f}. They rolled a big ball, then a smaller one, and then the smallest one of all.", "{H} ran to {f}. They slid down the hill [again and again|on an old tray], and their cheeks were red with cold.")
    s.say("They built a snowman. {H} gave it [a carrot|a pine cone|a red berry] for a nose, and {f} gave it [two buttons|two black stones|two nuts] for eyes. But something was missing.", "They made a snowman with a round belly and a wide smile. \"He looks cold,\" said {f}.")
    s.say("\"He has no friend,\" said {h}. So they built a second one[, a little smaller|], and the two snowmen stood side by side, holding sticks.", "\"He needs a hat,\" said {h}, and {h.s} put {h.p} own hat on the snowman's head. \"Now he is one of us.\"")
    s.par()
    s.say("When their {h.hands} were too cold, they went inside. {H.mum} had made [hot cocoa|warm soup|hot apple juice], and they sat by the fire.", "Soon it began to get dark. They went in, hung up their wet things, and drank hot cocoa by the fire.")
    s.say("That night, {h} looked out of the window. The moon was shining, and for a moment it seemed that the snowman [waved|winked at {h.o}|took off his hat].", "\"Do you think the snowman comes alive at night?\" asked {f}. \"I do not know,\" said {h}. But in the morning there were [small round footprints|strange tracks] all around the house.")
    s.say("When spring came, the snow melted. {H} was sad at first. But where the snowman had stood, [the first flower was blooming|a small blue flower looked out of the grass]. \"He left us a present,\" said {f}.", "\"Good night, snowman,\" said {h}. \"See you tomorrow.\"")
    s.facts["What did {h} and {f} build?"] = "They built a snowman."
    s.facts["What season was it?"] = "It was winter, and there was snow."
    ending(s, "even a cold day can be warm with a friend.", "some things do not last, but the memory stays.")


def cannot_sleep(s):
    s.theme = s.fill("who [cannot sleep|can not sleep|is awake at night]")
    s.say("One night, {h} could not sleep. {H.s} turned to the left. {H.s} turned to the right. [It was no use|{H.p} eyes stayed wide open].", "It was late, and the moon was high. Everyone was asleep, but {h} was still awake.")
    s.say("\"Maybe I am hungry,\" {h.s} thought. So {h.s} ate a little bread. But {h.s} was still awake.", "\"Maybe I should count something,\" thought {h}. {H.s} counted [sheep|stars|the ticks of the clock], one, two, three, up to a hundred. But {h.s} was still awake.")
    s.say("{H.x} [went outside|looked out of the window|opened the door a little]. The world was silver and quiet. There sat {f}, a {f.desc}, looking at the moon.", "Then there was a soft tap at the window. It was {f}, a {f.desc}, who could not sleep either.")
    s.say("\"I cannot sleep,\" said {h}. \"[My head is full of thoughts|I keep thinking about tomorrow|It is too quiet].\"", "\"Are you awake too?\" asked {h}. \"Yes,\" said {f}. \"The night is too beautiful for sleeping.\"")
    s.par()
    s.say("\"Then let us listen to the night,\" said {f}. They heard [the wind in the leaves|an owl far away|the river], and [a cricket|a frog] singing its little song.", "They sat side by side. {F} told a slow story about a boat that sailed to the moon with a cargo of pillows. The boat went up, and up, and up.")
    s.say("\"Tell me three good things from today,\" said {f}. {H} thought. \"[My breakfast|The warm sun|A funny cloud], a walk to {place}, and you,\" {h.s} said.", "\"My [grandmother|grandfather|aunt] says that every star is a little lamp for someone who cannot sleep,\" said {f}.")
    s.say("{H} wanted to answer, but {h.s} yawned. {H.p} eyes grew heavy. {F} yawned too.", "Slowly, {h}'s thoughts grew soft and round, like clouds. {H.s} [leaned against {f}|curled up].")
    s.say("And before the [story|song|next cloud] was over, {h} was fast asleep.", "When the moon looked down again, both of them were asleep. \"Good night,\" whispered the wind.")
    s.facts["Why was {h} awake?"] = "{H} could not sleep that night."
    s.facts["Who was awake too?"] = "{F}, a {f.desc}, was awake too."
    ending(s, "a quiet friend is the best pillow.", "thinking of good things helps you sleep.")


def rainy_day(s):
    s.theme = s.fill("about a rainy day")
    meet_friend(s)
    s.par()
    s.say("[All day long|On Saturday|On Sunday] it rained. It rained on {place}, it rained on the roofs, and it rained on everything in between.", "One day the rain came down like [strings of glass beads|a gray curtain]. \"Now we cannot go to {place},\" said {h}[ sadly|].")
    s.say("\"There is nothing to do,\" said {f}. They sat at the window and watched the drops race each other down the glass.", "{H} pressed {h.p} nose to the window. \"What a boring day,\" {h.s} said.")
    s.say("Then {h} had an idea. \"This table is not a table. It is a ship!\"", "\"Wait,\" said {f}. \"What if this room is not a room? What if it is [a cave full of treasure|an island|a jungle]?\"")
    s.say("They took a blanket for a sail and a broom for a mast. \"Where shall we go, captain?\" asked {f}. \"To the island of [pancakes|pirates|parrots|a hundred hats]!\" said {h}.", "They built a tent out of blankets and hung a lamp inside. \"In here it never rains,\" said {h}.")
    s.par()
    s.say("They met [a whale with a hat|a very polite pirate|a sea dragon who was afraid of water|three singing fish]. They found [a chest full of buttons|a golden spoon|a map of the kitchen]. They were [brave|in great danger] at least seven times.", "They told stories in turns. {F} began with a king who had lost his socks, and {h} ended with a cow on the moon.")
    s.say("Then they got hungry, so they sailed to the kitchen and ate {treat}.", "\"Land!\" cried {h}. The land was the kitchen, and there was {treat}.")
    s.say("\"Look,\" said {f}. \"The rain has stopped.\" A rainbow stood over {place}. But {h} said, \"Just one more adventure,\" and they sailed on.", "In the evening the rain stopped, and they had not even noticed. \"I hope it rains tomorrow,\" said {h}, and {f} laughed.")
    s.facts["What was the weather like?"] = "It was raining all day."
    s.facts["What did {h} and {f} do?"] = "They stayed inside and played that they had great adventures."
    ending(s, "with a little imagination, no day is boring.", "a rainy day can be as much fun as a sunny one.")


HOME_PLOTS = [lost_thing, rescue, sharing, fear, truth, garden, newcomer, quarrel, birthday, practice, snow_day, cannot_sleep, rainy_day]
