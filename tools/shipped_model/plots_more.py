"""More plots: storms, soup, colors, letters, found purses, waiting toys."""

from story import ending, interlude, meet_friend, scene


def storm_light(s):
    s.theme = s.fill("who [saves a ship|lights a lamp in a storm|helps in a storm]")
    s.say("{H} lived near the sea that year, in the house beside the old lighthouse.", "That summer, {h} was staying with {h.fam}, who looked after the lighthouse.")
    s.say("One night a terrible storm came up. The wind howled, and the waves were as high as houses.", "{Time}, black clouds rolled in from the sea, and by evening the storm was roaring.")
    s.say("Then the light in the tower went out. \"There is a ship out there!\" cried {h}. \"It cannot see the rocks!\"", "{H} looked out and saw that the great lamp was dark. And far out on the water, a small red light was dancing up and down. A ship!")
    s.par()
    s.say("{H} took a lantern and ran up the stairs, round and round, a hundred steps. {F}, a {f.desc}, came panting behind. \"Wait for me!\" called {f}.", "\"Come quickly,\" {h} called to {f}, a {f.desc}, and together they climbed the tower.")
    s.say("At the top, the wind had broken a window, and the rain had put out the flame. {H} held a coat in front of the hole while {f} tried to light the lamp. Once, twice, three times the match went out.", "The matches were wet. \"Only one is left,\" said {f}. {H} held {h.p} {h.hands} around it like a little house.")
    s.say("Then the flame caught, and the great light turned again, out over the dark sea.", "It burned! First small and blue, then big and golden, and the beam swept over the waves.")
    s.say("The ship saw it and turned, just in time. In the morning, the captain came up the stairs with his hat in his hand. \"You saved us all,\" he said.", "Out on the water a horn sounded three times. That means thank you. The ship was safe.")
    s.say("He gave {h} a small brass whistle. \"If you ever need help at sea,\" he said, \"blow this, and we will come.\"", "The next day the sea was as smooth as a mirror, and the sailors brought {treat} for the two heroes.")
    s.facts["What went out in the storm?"] = "The light in the lighthouse went out."
    s.facts["Who helped {h} in the tower?"] = "{F}, a {f.desc}, helped {h}."
    ending(s, "a small light can save many.", "do not give up when the first match goes out.", "it is good to be brave for others.")


def stone_soup(s):
    food = s.rng.sample(["a carrot", "an onion", "two potatoes", "some beans", "a bit of butter", "a handful of herbs", "a piece of cabbage", "some salt", "a leek", "three mushrooms"], 3)
    s.set(f1=food[0], f2=food[1], f3=food[2])
    s.theme = s.fill("who makes soup from a stone")
    s.say("{Time}, {h} came to a village where nobody had much to eat, and nobody wanted to share.", "{H} had walked a long way and was hungry. In the next village, every door was closed. \"We have nothing,\" said the people.")
    s.say("\"Then I will cook for you,\" said {h}. {H.s} put a pot of water over a fire in the middle of the square, and dropped a smooth stone into it. \"It will be stone soup,\" {h.s} said.", "{H} smiled, took a round stone out of {h.p} bag and put it into a pot of water. \"What are you doing?\" asked a child. \"I am making stone soup,\" said {h}.")
    s.par()
    s.say("People came to their windows. {A}, a {a.desc}, came closer. \"How does it taste?\" asked {a}. \"Wonderful,\" said {h}, \"but with {f1} it would be even better.\" \"I think that I have {f1} at home,\" said {a}.", "{H} tasted the water. \"Very good,\" {h.s} said. \"Only {f1} is missing.\" \"I could bring that,\" said {a}, a {a.desc}.")
    s.say("Then {b}, a {b.desc}, sniffed the air. \"With {f2} it would be a soup for a king,\" said {h}. And {b} ran home and brought {f2}.", "Soon {b}, a {b.desc}, came along too, and brought {f2}.")
    s.say("{F}, a {f.desc}, did not want to be the only one without a share in it, and came with {f3}. One brought bread, and another brought bowls.", "After that came {f}, a {f.desc}, with {f3}, and then many others, each with a little something.")
    s.say("When the soup was ready, there was enough for everyone. They ate and laughed and sang until the stars came out.", "What a soup that was! The whole village sat around the fire, and nobody was hungry anymore.")
    s.say("\"And all that from a stone!\" said {a}. {H} only smiled and put the stone back into {h.p} bag.", "\"May we keep the stone?\" asked {b}. \"Of course,\" said {h}. \"But you will see that it works with any stone, if everyone helps.\"")
    s.facts["What was in the soup?"] = "There was a stone in it, and {f1}, {f2} and {f3}."
    s.facts["Who brought {f1}?"] = "{A}, a {a.desc}, brought {f1}."
    ending(s, "when everyone gives a little, there is enough for all.", "sharing turns a stone into a feast.")


COLORS = [("red", "a poppy in the field", "the poppy gave a drop of its red"), ("blue", "the evening sky", "the sky let a bit of blue drip into the pot"), ("yellow", "a sunflower", "the sunflower shook a little yellow from its petals"), ("green", "the frog in the pond", "the frog knew a stone with the finest green moss"),
          ("orange", "the setting sun", "the sun painted the water orange, and some of it stayed in the pot"), ("white", "the first daisy", "the daisy gave some of its white"), ("purple", "the plum tree", "the plum tree dropped one ripe plum")]


def lost_colors(s):
    picked = s.rng.sample(COLORS, 3)
    s.theme = s.fill("who [looks for colors|paints a picture|has no colors]")
    s.say("{H} loved to paint. But {time}, all the colors in the paint box were dry and gray.", "{H} wanted to paint a picture for {h.fam}. But when {h.s} opened the paint box, it was empty.")
    s.say("\"Where do colors come from?\" asked {h}. \"From the world outside,\" said {f}, a {f.desc}. \"Let us go and ask for some.\"", "\"Then we must find new colors,\" said {f}, a {f.desc}, and took three little pots.")
    s.par()
    for color, source, how in picked:
        s.set(color=color, source=source, how=how)
        s.say("For {color}, they went to {source}. \"Please, may we have a little of your {color}?\" asked {h}. And {how}.", "\"Who has the best {color}?\" asked {h}. \"I know,\" said {f}. They found {source}, asked politely, and {how}.")
    interlude(s, 0.3)
    s.par()
    s.say("Back home, {h} painted until it was dark. {H.s} painted the hill and the pond, the sky and the flowers, and in the middle, two small friends with three little pots.", "Then {h} painted a picture with all of them in it. It was the most beautiful picture {h.s} had ever made.")
    s.say("{H.fam} hung it on the wall. \"It looks alive,\" said everyone who saw it.", "\"It is full of light,\" said {f}. \"That is because the whole world helped,\" said {h}.")
    s.facts["What was {h} missing?"] = "{H} had no colors."
    s.facts["Which colors did they find?"] = "They found " + picked[0][0] + ", " + picked[1][0] + " and " + picked[2][0] + "."
    ending(s, "the world is full of colors if you look.", "those who ask politely are often given more than they hoped for.")


def bottle_letter(s):
    s.choose([("a bottle with a letter in it", "by the water"), ("a red balloon with a note on its string", "in a tree"), ("a paper boat with words on its sail", "in the stream"), ("an old tin box with a letter inside", "under a root")], "find", "where3")
    s.theme = s.fill("who [finds a letter|gets a letter|writes a letter]")
    s.say("{Time}, {h} found {find} {where3}. The writing was [round and neat|small and crooked|a little wet].", "{Time}, something caught {h}'s eye. It was {find}, {where3}.")
    s.say("\"Dear finder,\" it said. \"I live far away and I have no one to talk to. Please write back. Your friend, {f}.\"", "On the paper were these words: \"Hello! My name is {f}. Who are you? What do you see from your window?\"")
    s.say("{H} sat down at once and wrote an answer. \"Dear {f}, I am {h}. From my window I see {place}. What do you like to eat?\"", "{H} had never got a letter before. {H.s} took a pencil and wrote: \"Dear {f}, my name is {h}. I would like to be your friend.\"")
    s.par()
    s.say("Every week a letter came and a letter went. They wrote about the weather, about {h.food}, and about their dreams. {H} kept all the letters in a box under the bed.", "Many letters went back and forth. {F} liked {f.liking}. {H} told {f} about {h.p} {toys}, and drew little pictures on the edge.")
    s.say("\"What do you look like?\" {h} wrote one day. \"I am a {f.kind},\" wrote {f}. {H} laughed. \"I never would have guessed!\"", "Then for a long time no letter came. {H} waited and worried. Had something happened to {f}?")
    s.say("And one fine morning, someone knocked at the door. There stood a {f.desc} with a small suitcase. \"Hello,\" said the {f.kind}. \"I wanted to bring my next letter myself.\"", "Then one day there was a knock. \"I was too busy to write,\" said a voice, \"because I was on my way to you.\" It was {f}, a {f.desc}.")
    s.say("{H} showed {f} everything {h.s} had written about, and it was as if they had known each other forever.", "They talked all night, although they already knew almost everything about each other.")
    s.facts["What did {h} find?"] = "{H} found {find}."
    s.facts["Who wrote the letter?"] = "{F}, a {f.desc}, wrote the letter."
    ending(s, "a friend can be far away and still be close.", "a few kind words can travel a long way.")


def found_purse(s):
    s.choose([("a purse full of coins", "the old miller", "had been saving for a new wheel"), ("a golden ring", "the teacher", "had it from her mother"), ("a small silver watch", "the station master", "could not tell the time without it"), ("a bag of money", "the shoemaker", "needed it to buy leather"), ("a pearl necklace", "the queen", "had cried for three days"), ("a little violin in a black case", "the street musician", "could not play without it")], "find", "owner", "why")
    s.set(os="she" if s.env["owner"] in ("the teacher", "the queen") else "he")
    s.theme = s.fill("who [finds something valuable|finds {find}|is honest]")
    s.say("{Time}, {h} was walking {place.in} when {h.s} found {find} in the grass.", "{Time}, {h} saw something on the path. It was {find}!")
    s.say("\"With this I could buy anything,\" thought {h}. \"A mountain of {h.food}. A hundred {toy}s.\"", "\"Finders keepers,\" said {a}, a {a.desc}. \"It is yours now.\"")
    s.say("But then {h} thought of the one who had lost it. \"Someone must be very sad,\" {h.s} said.", "{H} held it in {h.p} {h.hand}. It was heavy. But even heavier was the thought that it was not {h.p} own.")
    s.par()
    s.say("So {h} went from door to door. \"Did you lose something?\" {h.s} asked the baker. \"No,\" said the baker. \"Did you lose something?\" {h.s} asked the smith. \"Only my hair,\" said the smith and laughed.", "{H} asked everyone in town. {F}, a {f.desc}, went along and rang a little bell. \"Who has lost something?\" they called.")
    s.say("At the last house sat {owner}, with a very sad face. \"I have lost {find},\" {os} said. {Owner} {why}.", "Then they met {owner}, who was looking under every leaf. \"I have lost {find},\" {os} said.")
    s.say("\"Here it is,\" said {h}. {Owner} could not believe it and shook {h.p} {h.hand} again and again.", "{H} held it out without a word. {Owner} laughed and cried at the same time.")
    s.say("\"How can I thank you?\" {os} asked. {H} shrugged. \"You are smiling,\" {h.s} said. \"That is enough.\"", "The next day, a basket stood at {h}'s door. In it was {treat}, and a note: For the most honest {h.kind} in the world.")
    s.facts["What did {h} find?"] = "{H} found {find}."
    s.facts["Who had lost it?"] = "It belonged to {owner}."
    ending(s, "honesty is worth more than gold.", "giving back feels better than keeping.", "what is not yours will never make you happy.")


def waiting_toy(s):
    s.choose([("a wooden horse with one blue eye", "horse"), ("a rag doll with a crooked smile", "doll"), ("a small gray elephant made of cloth", "elephant"), ("a tin soldier without a hat", "soldier"), ("a teddy bear with one ear", "bear"), ("a music box that played only three notes", "music box")], "item", "short")
    s.theme = s.fill("about an old toy")
    s.say("In the window of a little toy shop sat {item}. It had been waiting there for a long, long time.", "There was a toy shop in that town, and on its last shelf sat {item}.")
    s.say("Every day children came in. They took the shiny trains and the new balls. Nobody took the {short}. \"It is not perfect,\" they said.", "\"Why does no one want me?\" the {short} asked the old clock. \"Your time will come,\" said the clock.")
    s.say("One evening before the holidays, the shop was almost empty. Snow was falling outside. \"Perhaps I am not good enough,\" thought the {short}.", "Spring went by, and summer, and autumn. The dust lay on its head like gray snow.")
    s.par()
    s.say("Then the door opened with a ring, and in came {h} with {h.fam}. {H} walked past the trains. {H.s} walked past the balls. Then {h.s} stopped.", "One day {h} pressed {h.p} nose to the window. And {h.p} eyes met those of the {short}.")
    s.say("\"That one,\" said {h}. \"But it is not perfect,\" said the man in the shop. \"Neither am I,\" said {h}. \"That is why we will understand each other.\"", "\"I want this one,\" said {h}. \"Are you sure? There are newer ones,\" said {h.fam}. \"I am sure,\" said {h}. \"It looked at me.\"")
    s.say("{H} carried the {short} home under {h.p} coat. {H.s} cleaned it, mended it, and gave it a place beside the pillow.", "At home, {h} brushed off the dust and tied a red ribbon around it. It looked like new, or almost.")
    s.say("That night, the {short} could hardly believe its luck. \"It was worth the wait,\" it thought, and if you had listened very closely, you could have heard it sigh with joy.", "From then on they went everywhere together: up the hill, down to {place}, and far into the land of dreams.")
    s.facts["What did {h} choose in the shop?"] = "{H} chose {item}."
    s.facts["Was the toy perfect?"] = "No, but {h} loved it just as it was."
    ending(s, "you do not have to be perfect to be loved.", "what is old can still be dear.")


def concert(s):
    instruments = s.rng.sample([("the drum", "boom boom"), ("the flute", "tweet"), ("the violin", "deedle dee"), ("the trumpet", "tara"), ("the bell", "ding dong"), ("two spoons", "clack clack"), ("the guitar", "plink plonk")], 3)
    s.set(i1=instruments[0][0], n1=instruments[0][1], i2=instruments[1][0], n2=instruments[1][1], i3=instruments[2][0], n3=instruments[2][1])
    s.theme = s.fill("who [makes music|wants to play in a band|sings]")
    meet_friend(s)
    s.par()
    s.say("{Time}, {h} said, \"Let us make music!\" {F} took {i1}, {a} the {a.kind} took {i2}, and {h} took {i3}.", "There was to be a feast {place.in}, and the friends wanted to play. {F} had {i1}, {a} the {a.kind} had {i2}, and {h} had {i3}.")
    s.say("\"{N1}!\" went {i1}. \"{N2}!\" went {i2}. \"{N3}!\" went {i3}. It was terrible. The birds flew away, and someone closed a window.", "They all began at once, as loud as they could. {N1}! {N2}! {N3}! \"Stop!\" cried the neighbors and held their ears.")
    s.say("\"You are too loud,\" said {f}. \"And you are too fast,\" said {a}. Soon they were all angry.", "\"It is your fault,\" said {a}. \"No, yours!\" said {f}. {H} put {i3} down.")
    s.par()
    s.say("Then {h} had an idea. \"We all play, but nobody listens,\" {h.s} said. \"Let us try it again, and this time everyone listens to the others.\"", "An old man on a bench had heard it all. \"Music is not only playing,\" he said. \"Music is listening, too.\"")
    s.say("So {f} began, very softly: {n1}, {n1}. Then {a} came in: {n2}. And when the time was right, {h} added {n3}. Suddenly it was a song.", "They tried again. First one, then two, then all three, each leaving room for the others. And there it was, a real tune!")
    s.say("People stopped and smiled. Someone began to dance. Even the birds came back and sang along.", "At the feast, everyone danced until midnight, and the mayor's hat flew into the soup.")
    s.facts["What did {h} play?"] = "{H} played {i3}."
    s.facts["What did {f} play?"] = "{F} played {i1}."
    ending(s, "listening is half of the music.", "together we can make something that no one can make alone.")


def bridge(s):
    s.theme = s.fill("who builds a bridge")
    s.say("A stream ran between two villages, and the people on one side did not talk to those on the other. No one remembered why.", "{H} lived on one side of the river. On the other side lived {f}, a {f.desc}. They could wave, but they could not meet, for there was no bridge.")
    s.say("Every day {h} saw {f} on the other bank. They shouted jokes across the water, but the wind blew half of the words away.", "\"I wish I could come over,\" called {h}. \"So do I,\" called {f}. The water laughed and ran on.")
    s.say("\"We will build a bridge,\" said {h} one day.", "{Time}, {h} took a stone and put it into the water. Then {h.s} took another one.")
    s.par()
    s.say("The others laughed. \"One stone is not a bridge.\" \"No,\" said {h}, \"but it is a start.\" On the other side, {f} had begun as well.", "{H} put down ten stones a day, and {f} put down ten from the other side. When it rained, the stream took some of them away again. They did not give up.")
    s.say("After a week, {a}, a {a.desc}, came to help. After two weeks, there were ten of them, with ropes and boards and songs.", "Little by little, others came to help, first out of curiosity, then for fun.")
    s.say("At last only one board was missing, right in the middle. {H} held one end, and {f} held the other. Click! It fit.", "And one evening, {h} and {f} stood in the middle of the bridge and shook {h.hands}.")
    s.say("That night both villages had a feast on the bridge. They found out that they knew the same songs. And nobody could say why they had not talked for so long.", "From then on, people went back and forth all day. They brought each other bread and stories.")
    s.facts["What did {h} and {f} build?"] = "They built a bridge."
    s.facts["Who was on the other side?"] = "{F}, a {f.desc}, was on the other side."
    ending(s, "every bridge begins with one stone.", "someone has to make the first step.")


def lazy_cloud(s):
    s.choose([("cloud", "did not want to rain", "the fields were dry, and the flowers hung their heads", "began to rain, soft and warm"), ("moon", "did not want to shine", "the nights were black, and the owls flew into trees", "came out, round and silver"), ("sun", "stayed in bed", "it was cold and gray, and the roosters were confused", "came up, golden and warm"), ("wind", "was too tired to blow", "the windmill stood still, and there was no flour for bread", "began to blow, fresh and strong")], "sky", "lazy", "result", "again")
    s.theme = s.fill("about a {sky} that {lazy}")
    s.say("In that year, the {sky} {lazy}. And so {result}.", "{Time}, everyone noticed it: the {sky} {lazy}. Soon {result}.")
    s.say("\"Someone must talk to the {sky},\" they said. So {h} and {f}, a {f.desc}, climbed the highest hill.", "{H} asked {f}, a {f.desc}, what to do. \"Let us ask the {sky} itself,\" said {f}. And they climbed up as high as they could.")
    s.say("\"Dear {sky},\" called {h}, \"why do you do this?\" The {sky} sighed. \"Nobody ever thanks me,\" it said. \"They only complain.\"", "\"What is the matter?\" asked {h}. \"I work every day,\" said the {sky}, \"and nobody even looks up.\"")
    s.par()
    s.say("{H} and {f} looked at each other. It was true. So they ran home and told everyone.", "\"That is sad,\" said {f}. \"Wait here,\" said {h}. \"We will be back soon.\"")
    s.say("The next day, all of them came to the hill with drums and flags and {treat}. \"Thank you, dear {sky}!\" they called. They sang a song that {h} had made up.", "They painted a sign as long as a house, with the words: Thank you, {sky}! And they laid it in the grass, so that it could be read from above.")
    s.say("The {sky} blushed. \"For me?\" it asked. And then it {again}.", "For a moment nothing happened. Then the {sky} smiled and {again}.")
    s.say("Since then, {h} looks up every day and says thank you. It costs nothing, and the {sky} likes it very much.", "Everybody cheered. And once a year they still have a feast for the {sky}.")
    s.facts["Why was there a problem?"] = "The {sky} {lazy}."
    s.facts["Who climbed the hill?"] = "{H} and {f} climbed the hill."
    ending(s, "it is good to say thank you.", "everyone likes to be seen.")


def picnic(s):
    s.theme = s.fill("about a picnic")
    meet_friend(s)
    s.par()
    s.say("{Time}, they packed a basket and went to {place}. There was {treat}, and there were plums and a bottle of juice.", "\"Let us have a picnic,\" said {h} one morning. They took a big blanket and {treat} and walked to {place}.")
    scene(s)
    s.say("They spread the blanket under a tree. Just when {h} wanted to take the first bite, an ant walked across {h.p} {h.hand}. Then came another one, and then a whole line of ants.", "Hardly had they sat down when a [goose|goat|pony] came out of the bushes and looked at the basket.")
    s.say("\"They want our food!\" cried {f}. \"There is enough,\" said {h}, and {h.s} put some crumbs on a leaf, a little way off. \"This is your table,\" {h.s} told the guests.", "\"Guests!\" said {h}. {H.s} put a piece aside for them, and everyone was content.")
    interlude(s, 0.4)
    s.say("Then a dark cloud came, and big drops fell. They pulled the blanket over their heads and it became a tent. \"This is even better,\" said {f}.", "After lunch they lay on their backs and looked for animals in the clouds. {H} found a whale. {F} found a whale that was eating a whale.")
    s.say("When it was time to go, {h} looked at the basket. It was empty, but {h.s} felt full, and not only in the stomach.", "On the way home, they sang so loudly that the cows joined in.")
    s.facts["Where was the picnic?"] = "The picnic was {place.in}."
    s.facts["What did they eat?"] = "They ate {treat}."
    ending(s, "there is always a little to spare for a guest.", "the simplest days can be the best.")


MORE_PLOTS = [storm_light, stone_soup, lost_colors, bottle_letter, found_purse, waiting_toy, concert, bridge, lazy_cloud, picnic]
