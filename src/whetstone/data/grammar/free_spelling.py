"""Misspellings of any English word that are no words themselves, as far as rules can tell without a dictionary."""

import re
from collections.abc import Mapping
from functools import cache

from whetstone.data.grammar.errors import MISSPELLED, misspellings

__all__ = ["free_misspellings"]

_SHORTEST = 8
"""From this length on a dropped, doubled or swapped letter seldom makes another word (under 1 in 300)."""

# Where British and American spelling differ, and the endings before which a doubled letter makes another word.
_RISKY = re.compile(r"our|ll|ae|oe|(?:ed|ing|ings|ers?|ors?|est|ies|oes|es|ist|ists|ments?|ful|ably?|able|ously|ness)$")

# Of the words that remain, those with a distortion that is a word: "patients" and "patents", "needless" and "needles".
_NEIGHBOURED = """
adventuress aluminium appraise auctions automation bandanas beautify cancelation carousel cartoons cauldron cautions
chairwoman chairwomen commandos complaint compliant concertos corporeal correspondent correspondents crystalize
defecation denature depreciate depreciation desserts dexterous employee forebear foregone freights funereal
gauntlet graduation graduations granddad grandeur handicraft handicrafts handiwork harmonicas humanely imperial
infarction infraction inhumanely jewellery judgemental libelous licensee manifestos mantelpiece marvelous meagerly
moustache needless ordinance overshoot palatial parakeet patiently patients perfects phosphorus politicos
predication predicative prefects princess prospectus salivation sentience somberly sombrely speciality studious
suppliant thorough tranquility tranquilize undershoot useability vermilion workaday
"""
_WITH_NEIGHBOURS = frozenset(_NEIGHBOURED.split())

_COMMON_PAIRS = """
receive:recieve believe:beleive/belive friend:freind friends:freinds their:thier which:wich people:poeple/peaple
government:goverment environment:enviroment/envirement different:diferent/diffrent really:realy until:untill
beginning:begining occurred:occured stopped:stoped studying:studing successful:succesful/successfull
necessary:neccessary/necesary knowledge:knowlege/knowledg although:althought/altough through:throught
thought:tought should:shoud/shuold would:woud could:coud another:anoter always:allways/alwais
without:whithout/withuot especially:especialy/expecially generally:generaly finally:finaly actually:actualy
probably:probaly/propably definitely:definately/definitly separate:seperate happened:happend business:busness/bussiness
country:contry countries:contries children:childern/chidren decision:desicion society:sociaty/socity young:yong/yung
example:exemple learn:lern learning:lerning student:studant students:studants teacher:techer
teachers:techers company:compagny/compny product:prodact products:prodacts problem:probleme/probelm
problems:problemes/probelms future:futur/futture quality:qualaty/qualty experience:experiance/expirience
opinion:openion/opinon reason:reson reasons:resons second:secound third:thrid first:fisrt better:beter
travel:travle/travell travelling:traviling every:evry/evrey everyone:evryone everything:everthing/evrything
something:somthing someone:somone/someon money:mony many:meny often:offen/ofen
answer:anser/awnser question:qestion/quesion world:wolrd building:bulding bought:bougth enough:enouth/enogh
friendly:freindly weather:wheater/wether foreign:foriegn/foreing language:langauge/languge history:histroy
important:importent/imporant difficult:dificult/diffcult similar:similiar/simular advertisement:advertisment
advertisements:advertisments
"""
_COMMON: Mapping[str, tuple[str, ...]] = {
    right: tuple(wrong.split("/")) for right, wrong in (pair.split(":") for pair in _COMMON_PAIRS.split())
}


@cache
def free_misspellings(word: str) -> tuple[str, ...]:
    """What a learner may write for a word; none where the result might be another word or an accepted spelling.

    Args:
        word: As it stands in the text; names and other words with capitals are left alone.

    Returns:
        The misspellings.
    """
    if word in _COMMON:
        return _COMMON[word]
    if word in MISSPELLED:
        return MISSPELLED[word]
    if len(word) < _SHORTEST or not word.isascii() or word in _WITH_NEIGHBOURS or _RISKY.search(word):
        return ()
    return misspellings(word)
