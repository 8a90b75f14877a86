#include <string_view>

#include "load/prompts.h"

namespace cairn::load {
namespace {

constexpr std::string_view kWords[] = {
    "able",       "action",      "activity",    "age",      "air",       "area",         "arm",
    "art",        "baby",        "back",        "bad",      "bank",      "best",         "big",
    "black",      "blue",        "board",       "body",     "book",      "box",          "boy",
    "building",   "business",    "car",         "card",     "case",      "center",       "central",
    "century",    "change",      "child",       "city",     "class",     "clear",        "college",
    "common",     "community",   "company",     "control",  "cost",      "country",      "couple",
    "court",      "data",        "day",         "dead",     "death",     "decision",     "development",
    "difference", "different",   "director",    "doctor",   "door",      "drug",         "early",
    "east",       "education",   "effect",      "effort",   "end",       "energy",       "event",
    "experience", "eye",         "face",        "fact",     "family",    "father",       "few",
    "field",      "figure",      "film",        "fine",     "fire",      "foot",         "force",
    "foreign",    "form",        "free",        "friend",   "future",    "game",         "girl",
    "good",       "government",  "great",       "green",    "ground",    "group",        "guy",
    "hand",       "happy",       "head",        "health",   "heart",     "high",         "history",
    "home",       "hospital",    "hot",         "hour",     "house",     "idea",         "image",
    "important",  "industry",    "information", "interest", "issue",     "job",          "kid",
    "kind",       "land",        "large",       "law",      "leader",    "level",        "life",
    "light",      "line",        "little",      "long",     "lot",       "love",         "man",
    "market",     "matter",      "member",      "mind",     "minute",    "moment",       "money",
    "month",      "morning",     "mother",      "movie",    "music",     "name",         "nation",
    "natural",    "need",        "news",        "next",     "night",     "north",        "number",
    "office",     "oil",         "old",         "others",   "paper",     "parent",       "part",
    "party",      "past",        "patient",     "people",   "person",    "phone",        "picture",
    "piece",      "place",       "plan",        "player",   "point",     "police",       "policy",
    "poor",       "position",    "possible",    "power",    "practice",  "president",    "price",
    "private",    "problem",     "process",     "product",  "program",   "project",      "public",
    "question",   "rate",        "real",        "reason",   "record",    "relationship", "report",
    "research",   "result",      "right",       "river",    "road",      "role",         "room",
    "same",       "school",      "season",      "sense",    "serious",   "service",      "show",
    "side",       "significant", "similar",     "site",     "situation", "small",        "society",
    "son",        "south",       "space",       "star",     "state",     "step",         "stone",
    "story",      "street",      "strong",      "student",  "study",     "summer",       "summit",
    "support",    "sure",        "system",      "table",    "tax",       "teacher",      "team",
    "test",       "thing",       "time",        "town",     "type",      "use",          "value",
    "view",       "voice",       "wall",        "war",      "water",     "way",          "week",
    "west",       "white",       "whole",       "wife",     "woman",     "word",         "work",
    "worker",     "world",       "year",        "young",
};

}  // namespace

std::span<const std::string_view> common_words() { return kWords; }

}  // namespace cairn::load
