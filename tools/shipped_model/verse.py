"""Small rhymed poems on everyday subjects: couplets whose second line rhymes with the first."""

from grammar import pick

# subject: first couplets, middle couplets, last couplets. Each couplet is two lines.
SUBJECTS = {
    "the moon": (["The moon is round, the moon is bright,|it is the lantern of the night.", "The silver moon climbs up the sky|and smiles at all as it goes by."],
                 ["It looks into my little room|and paints the walls with silver bloom.", "It walks above the sleeping sea|and sends a secret smile to me.", "The owls wake up, the flowers sleep,|the shadows of the trees are deep."]),
    "the rain": (["The rain comes down on roof and tree,|it sings a quiet song to me.", "Drip drop, drip drop, the rain is here,|it falls so cool, it falls so clear."],
                 ["It fills the pond, it fills the lake,|it gives the flowers a drink to take.", "The ducks are glad, they dance around,|they love the wet and muddy ground.", "I jump in puddles, one, two, three,|and no one is as wet as me."]),
    "the sun": (["The sun gets up, the night is done,|good morning to you, golden sun.", "The golden sun is in the sky,|it sees the clouds go sailing by."],
                ["It warms the stones, it warms the sand,|it paints with gold across the land.", "The birds begin to sing and play,|to say hello to the new day.", "And every flower, great and small,|looks up and loves it best of all."]),
    "a cat": (["My little cat is soft and gray,|she sleeps for half the night and day.", "A cat sat on the window sill|and kept herself so very still."],
              ["She dreams of mice, she dreams of fish|and of some cream upon a dish.", "She washes both her ears with care|and then she jumps up on my chair.", "She walks so softly, who would know|a cat was there, on tippy toe?"]),
    "a dog": (["My dog is fast, my dog is brown,|he is the nicest dog in town.", "My little dog runs to the door,|he brings the ball and wants some more."],
              ["He wags his tail, he licks my hand,|he digs deep holes into the sand.", "He barks at cats, he barks at bees,|he barks at birds up in the trees.", "And when I am a little sad,|he sits with me, and I am glad."]),
    "the sea": (["The sea is wide, the sea is blue,|it has a song for me and you.", "The waves roll in, the waves roll out,|the gulls fly up and dance and shout."],
                ["It hides its treasures in the deep,|where old and silent fishes sleep.", "I find a shell and hold it near,|and it is all the sea I hear.", "A little boat goes far away|and comes back home at end of day."]),
    "winter": (["The snow is white, the wind is cold,|the stars are bright like drops of gold.", "Winter comes on quiet feet|and puts a blanket on the street."],
               ["The bear is sleeping in his den,|and he will not get up till ten.", "We sit together, warm and near,|the fire is the best thing here.", "The snowman has a carrot nose|and stands there proudly while it snows."]),
    "spring": (["The snow is gone, the grass is green,|the finest spring I ever have seen.", "Spring is coming, can you hear?|The birds are singing, loud and clear."],
               ["The little lambs begin to play,|the nights are short and long the day.", "The bees are busy, every one,|they fly and hum beneath the sun.", "The flowers open, red and blue,|they have been waiting just for you."]),
    "autumn": (["The leaves are red, the leaves are gold,|the days are short, the nights are cold.", "The wind goes dancing through the trees|and plays with all the yellow leaves."],
               ["The apples fall, the nuts are brown,|the squirrel carries them around.", "The birds fly south, they cannot stay,|we wave and watch them fly away.", "I kick the leaves and hear the sound|of summer resting on the ground."]),
    "a friend": (["A friend is someone who is there|and has a little time to spare.", "I have a friend, my friend has me,|and that is how it ought to be."],
                 ["We laugh and play, we run and sing,|we talk about most everything.", "And when I fall, you take my hand,|and when I cry, you understand.", "With you the longest road is short,|you are a friend of the best sort."]),
    "a tree": (["An old tree stands upon the hill,|a hundred years and standing still.", "There is a tree so big and tall,|I am beside it very small."],
               ["The birds have built their nests up there|and sing their songs into the air.", "Its roots go deep into the ground,|where only moles and worms are found.", "It gives us shade, it gives us wood,|and asks for nothing, and is good."]),
    "a star": (["One little star is shining bright,|it keeps me company at night.", "A star looked down from far away|and whispered what it had to say."],
               ["It shines for ships upon the sea,|it shines for you, it shines for me.", "So many stars, I cannot count,|there is no end to their amount.", "I make a wish, I close my eyes,|and dream of all the starry skies."]),
    "a bird": (["A little bird sat in a tree|and sang its morning song to me.", "I wish I were a bird so light,|I would fly up to such a height."],
               ["It builds a nest of grass and hay|and works the whole long sunny day.", "Three little eggs are in the nest,|and mother bird can hardly rest.", "It spreads its wings, it flies up high,|a tiny dot against the sky."]),
    "the wind": (["The wind came running down the hill,|it could not, would not, stand still.", "Who has seen where the wind is going?|It only laughs and goes on blowing."],
                 ["It took my hat, it took my kite|and carried them far out of sight.", "It shakes the trees, it rings the bell,|and what it sings, no one can tell.", "At night it whispers at my door|and tells of lands it saw before."]),
    "a mouse": (["A tiny mouse lived in a shoe,|a cozy home for one or two.", "There was a mouse as small as small,|who had a house inside the wall."],
                ["It had a bed made out of cheese|and blankets made of yellow leaves.", "It danced at night when none could see|and had a cup of peppermint tea.", "The cat came by, the mouse was out,|and no one knew its whereabout."]),
    "a rose": (["A rose was growing by the wall,|it was the reddest rose of all.", "A little rose, so red and sweet,|grew at the corner of the street."],
               ["The bees came by from far away|to say good morning every day.", "It had some thorns, but do not mind,|its heart was soft, its scent was kind.", "And when the evening wind blew cool,|it closed its petals like a jewel."]),
}
LAST = ["So close your eyes and sleep till light,|I wish you well, I wish good night.", "And this is where my poem ends,|I read it out to all my friends.", "It makes me glad, it makes me smile,|and I will stay a little while.", "And if you ask me, I will say:|it is a good and lovely day.", "I think of it when I am grown,|and then I never feel alone."]


def poem(rng):
    """(subject, text) of one poem of two to five couplets."""
    subject = pick(rng, list(SUBJECTS))
    first, middle = SUBJECTS[subject]
    couplets = [pick(rng, first)] + rng.sample(middle, rng.randint(1, 3)) + ([pick(rng, LAST)] if rng.random() < 0.6 else [])
    lines = [line for couplet in couplets for line in couplet.split("|")]
    return subject, "\n".join(line[0].upper() + line[1:] for line in lines)
