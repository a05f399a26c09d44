"""Where a learner error may be planted in free text, and how: one line a pattern.

A line reads ``left [core] right -> outcome | outcome``. Where the tokens of a text fit it, the core may be written as
one of the outcomes. An element is a word, the name of a class (upper case), several of them between slashes, or ``!``
and what the token must not be. A cue stands for words in no fixed place: ``-CUE`` must stand nowhere earlier in the
sentence, ``~CUE`` somewhere earlier in it, ``+CUE`` somewhere later in the clause. In an outcome ``{0}`` is the first
token of the core and ``{0.base}`` a form of it; ``_`` leaves the core out.

A line is here only if what it writes is wrong wherever it fits; contexts that would make it right are excluded ("if I
were", "insist that he go", "go to school", "the group of students is").
"""

from collections.abc import Mapping

from whetstone.data.grammar.sentence import ErrorKind

__all__ = ["CUES", "RULES"]

CUES: Mapping[str, str] = {
    "SUBJUNCTIVE": r"(?:suggest|recommend|insist|demand|require|propos|request)\w*|important|essential|necessary|vital",
    "UNREAL": r"if|wish\w*|though|unless|suppose|supposing|imagine|were",
    "ONE": "one|each|either|neither|none",
    "PAST_TIME": "yesterday|ago|last (?:week|month|year|night)",
    "PAST_DAY": "yesterday|last (?:week|month|year|night)",
    "FUTURE_TIME": "tomorrow|next (?:week|month|year)",
    "SINCE": r"since (?:then|last|childhood|\d+)",
    "THEN": r"(?:when|while) \w+ (?:was|were)|^(?:when|after) \w+ (?:\w+ed|went|came|saw|got|had|found|heard)",
    "LONG_AGO": "^in the past|years ago",
    "SOME_DAY": "in the future|in the near future|someday",
    "BY_THEN": "^in the (?:near )?future|^tomorrow|^next (?:week|month|year)",
    "ALTHOUGH": "although|though",
    "CONDITION": "^(?:if|although|when|while)",
}
"""The regular expressions of the cues, over lower-case words."""

_AGREEMENT = """
-SUBJUNCTIVE !PREP HE [THIRD] -> {0.clash}
-SUBJUNCTIVE everyone/everybody/someone/nobody/anyone/everything/nothing [THIRD/is] -> {0.clash}
!of HE [is] -> are
!of -UNREAL HE [was] -> were
-SUBJUNCTIVE !of HE [has] -> have
HE [doesn't] -> don't
HE [does] NOT -> do
HE [isn't] -> aren't
HE [hasn't] -> haven't
-ONE !of THEY [BASE] -> {0.clash}
-ONE !of WE [are] -> is
-ONE !of WE [were] -> was
-ONE !of THEY [don't] -> doesn't
-ONE !of THEY [do] NOT -> does
-ONE !of WE [aren't] -> isn't
i [am] -> is | are
OPEN DET/MANY/many/most/some/all SOLIDS [are/were/have/don't/BASE] -> {0.clash}
OPEN DET/many/most/some/all ADJ SOLIDS [are/were/have/BASE] -> {0.clash}
START SOLIDS [are/were/have/BASE] -> {0.clash}
START ADJ SOLIDS [are/were/have/BASE] -> {0.clash}
OPEN ONEDET SOLID [is/has] -> {0.clash}
-UNREAL OPEN ONEDET SOLID [was] -> were
-SUBJUNCTIVE OPEN ONEDET SOLID [PURETHIRD] -> {0.clash}
-SUBJUNCTIVE OPEN ONEDET ADJ SOLID [is/has/PURETHIRD] -> {0.clash}
OPEN NAME [is/has/PURETHIRD] -> {0.clash}
-ONE SOLIDS who [are/were/have/BASE] -> {0.clash}
SOLID who [is/has/THIRD] -> {0.clash}
there [are/were] MANY/many/SOLIDS -> {0.clash}
there [is] a/an/another -> are
there [was] a/an/another -> were
[these] COUNTS -> this
[those] SOLIDS -> that
[this] SOLID STOP -> these
"""

_ARTICLE = """
[an] VOWEL -> a
[a] CONSONANT -> an
!UNSURE [a/an] SOLID STOP -> _
!UNSURE [a/an] ADJ SOLID STOP -> _
in/on/into/from/near/behind/under/inside/of/at [the] SOLID STOP -> _
in/on/into/from/near/behind/under/inside/of/at [the] ADJ SOLID STOP -> _
START [the] SOLID is/are/was/were/has/had/PURETHIRD/PAST -> _
[the] same !time -> _ | a
[the] rest of -> _ | a
in/of/around/over [the] world -> _
on [the] other hand -> _
at [the] beginning/end of -> _
in [the] middle of -> _ | a
in [the] morning/evening/afternoon -> _
on [the] internet -> _
for [the] first time -> _
is/are/was/were/of/in/one [the] EST -> _
one of [the] SOLIDS -> _
such [a/an] ADJ/SOLID -> the | _
[a] lot of -> the | _
about/with/without/for/of/get/gets/find/give/gives/have/need/needs [MASS] STOP -> {0.an} {0}
with/have/has/see/like/likes/buy/for/about [SOLIDS] STOP -> {0.an} {0}
in/to/from/across [COUNTRY] STOP -> the {0}
speak/speaks/learn/learns/in [LANGUAGE] STOP -> the {0}
in [MONTHS] STOP -> the {0}
OPEN [NAME] is/was/has/THIRD/PAST -> the {0}
"""

_PREPOSITION = """
depend/depends/depended/depending/rely/relies [on] -> of | from
interested [in] -> on | at
listen/listens/listened/listening [to] -> at
bad/better/good [at] ING/it/MASS -> on
afraid/scared/capable/aware [of] -> from | with
different/differs [from] -> of | with
consist/consists/consisted [of] -> from | by
responsible/famous [for] -> of
wait/waits/waited/waiting [for] -> of | at
married [to] -> with
arrive/arrives/arrived [at/in] DET -> to | into
according [to] -> with | of
instead/because/front/full/proud/lack/member/members [of] -> from
[at] the moment -> from
[at] night -> in | on
[at] home -> in | on
[at] least -> in | on
[on] DAYS/DAYSS -> in | at
[in] MONTHS !NUMBER -> on | at
[in] YEAR -> on | at
[in] the morning/evening/afternoon !of -> on | at
[on] the other hand -> in | at
[for] example -> in | on
[in] fact/addition/general/conclusion -> on | at
[in] my/our/his/her/their opinion -> on | for
[in] the future -> on | at
[in] the world -> on | at
[in] this/that case/way -> on | at
[by] bus/car/train/plane/bike/boat -> with | on
[for] a long time -> since | from
[for] MANY years/months/weeks/days/hours/minutes -> since
[at] school/lunch -> on
[on] the internet -> at
attention [to] !BASE -> at | for | on
due/similar/addicted/solution [to] !BASE -> of | at
belong/belongs/belonged [to] -> of | at
worried/worry [about] -> of | on
complain/complained/complains/think/thinks/thinking/talk/talks/talking [about] -> at
participate/participates/succeed/succeeds/believe/believes/believed [in] -> on | at
lead/leads/contribute/contributes [to] !BASE -> for | of
suffer/suffers/suffered/suffering [from] -> of | with
focus/concentrate/focuses/concentrates/emphasis [on] -> in | at
effect/effects/influence/impact [on] DET -> to | for
take/takes part [in] -> on | at
lot/kind/kinds/type/types/number [of] -> from | for
spend/spends/spent time/money [on] -> for | at
knowledge/advantage/advantages/quality/risk/risks [of] -> at | to
compared/familiar/satisfied/agree/agrees/agreed/deal/deals [with] -> of | from
PAST/THIRD/BASE [in/at] the ROOM -> on | of
DET SOLID/SOLIDS [in/at] the ROOM -> on
is/are/was/were [in/at] the ROOM -> on | of
"""

_TENSE = """
HE [PAST/was] +PAST_TIME -> {0.third} | has {0.participle}
THEY [PAST/were] +PAST_TIME -> {0.base} | have {0.participle}
OPEN ONEDET SOLID [PAST/was] +PAST_TIME -> {0.third} | has {0.participle}
OPEN DET/MANY SOLIDS [PAST/were] +PAST_TIME -> {0.base} | have {0.participle}
OPEN NAME [PAST/was] +PAST_TIME -> {0.third} | has {0.participle}
yesterday HE [PAST/was] -> {0.third} | has {0.participle}
yesterday THEY [PAST/were] -> {0.base} | have {0.participle}
~PAST_DAY , HE [PAST] -> {0.third}
~PAST_DAY , THEY [PAST] -> {0.base}
~THEN , HE [PAST] -> {0.third}
~THEN , THEY [PAST] -> {0.base}
~LONG_AGO ,/ago HE [PAST/was] -> {0.third}
~LONG_AGO ,/ago THEY/SOLIDS [PAST/were] -> {0.base}
HE PAST and [IRREGULAR] -> {0.third}
HE PAST WORD and [IRREGULAR] -> {0.third}
HE PAST WORD WORD and [IRREGULAR] -> {0.third}
THEY PAST and [IRREGULAR] -> {0.base}
THEY PAST WORD and [IRREGULAR] -> {0.base}
THEY PAST WORD WORD and [IRREGULAR] -> {0.base}
~THEN , i [was] -> am
PRON/you/it/SOLIDS [will BASE] +FUTURE_TIME -> {1.past}
PRON/you/it/SOLIDS [will BASE] +SOME_DAY -> {1.past}
~BY_THEN ,/WORD PRON/you/it/SOLIDS [will BASE] -> {1.past}
HE [has PARTICIPLE/been] +SINCE -> {1.third}
THEY [have PARTICIPLE/been] +SINCE -> {1.base}
START if i/we/they [BASE] ASSERTED -> will {0}
START if HE [THIRD] ASSERTED -> will {0.base}
until/unless i/we/they [BASE] -> will {0}
until/unless HE [THIRD] -> will {0.base}
nowadays/currently/today , WE [are] -> were
nowadays/currently/today , HE [is] -> was
nowadays/currently , SOLIDS [are] -> were
"""

_VERB_FORM = """
!DET MODAL [BASE] -> {0.third} | {0.past} | {0.ing}
!DET MODAL NOT [BASE] -> {0.third} | {0.past} | {0.ing}
!DET MODAL [be] -> been | being
WANT to [BASE] -> {0.third} | {0.past} | {0.ing}
to [PURE] !LINK -> {0.third} | {0.past}
DO NOT [BASE] -> {0.third} | {0.past} | {0.ing}
DONT [BASE] -> {0.third} | {0.past} | {0.ing}
did THEY/HE [BASE] -> {0.past}
does HE [BASE] -> {0.third}
have/has/had [SPECIAL] -> {0.past} | {0.base}
have/has/had NOT/never/always/already/just [SPECIAL] -> {0.past} | {0.base}
have/has/had [been] -> be | being
is/are/was/were/be/been [PUREDONE] -> {0.base}
PRON is/are/was/were/am [PUREING] -> {0.base}
DET SOLID is/was [PUREING] -> {0.base}
DET SOLIDS are/were [PUREING] -> {0.base}
by/without/before/after/of/for/in/about/from [PUREING] !BE -> {0.base}
ENJOY [PUREING] -> {0.base}
ENJOY [ING] -> to {0.base}
DECIDE [to PURE] -> {1.ing}
PRON/SOLID/SOLIDS/you/it/NAME [IRREGULAR] -> {0.overdone}
HE/THEY [used] to BASE -> use
"""

_PLURAL = """
MANY/many [COUNTS] STOP/BASE/PAST -> {0.singular}
MANY/many/different/these/those ADJ [COUNTS] STOP/BASE/PAST -> {0.singular}
one of the/POSS/these [COUNTS] -> {0.singular}
one of the/POSS/these EST/ADJ [COUNTS] -> {0.singular}
these/those [COUNTS] STOP/BASE/PAST -> {0.singular}
lot/lots/number/types/kinds of [SOLIDS] STOP/BASE/PAST -> {0.singular}
a/an/one/every/each/another [COUNT] STOP -> {0.plural}
a/an/one/every/each/another ADJ [COUNT] STOP -> {0.plural}
[MASS] STOP -> {0}s
[children] -> childrens | childs
young/old/other/most/some [people] STOP -> peoples
[men] -> mans | mens
[women] -> womans | womens
"""

_WORD_ORDER = """
!KEEP the/POSS [ADJ SOLID] STOP -> {1} {0}
!KEEP the/POSS/these/those/many/some [ADJ SOLIDS] STOP -> {1} {0}
PRON/you/it [MODAL/DO/BE not] -> not {0}
PRON/you/it [DONT BASE] -> {1} {0}
[very ADJ] -> {1} {0}
[ADJ enough] to/for/. -> {1} {0}
[too ADJ] to/for/. -> {1} {0}
ASK WH [PRON/it/you BE] ASSERTED -> {1} {0}
START WH [are/do/did PRON/you] -> {1} {0}
START WH [is/was/does HE] -> {1} {0}
BASE/THIRD/PAST [it/him/them/you very much] -> {1} {2} {0}
[MANY/many years/months/weeks/days/hours ago] -> ago {0} {1}
[last/next UNIT] END -> {1} {0}
[all the] COUNTS/people -> {1} {0}
[POSS own] -> own {0}
[such a] -> {1} {0}
BASE/THIRD/PAST/ING [each other] END -> other each
[how to] BASE -> {1} {0}
"""

_MISSING_WORD = """
want/wants/wanted/able/order/need/needs/needed/try/tries/tried/decide/decided/hope/learned [to] PURE -> _
difficult/easy/important/necessary/possible/impossible/hard/going [to] PURE -> _
depend/depends/depended/depending/rely/relies [on] -> _
listen/listens/listened/listening/belong/belongs/according/due [to] -> _
wait/waits/waited/waiting [for] -> _
interested [in] -> _
lot/one/most/some/number/kind/member/members/afraid/aware/proud [of] DET -> _
lot/number/kind/kinds/type/types/lack [of] COUNT/COUNTS/MASS -> _
!COMPARE i [am] !END -> _
!COMPARE he/she [is/was] !END -> _
!COMPARE we/they [are/were] !END -> _
START this/that/it/there [is/was] a/an/the/not/very -> _
START there [are/were] many/some/MANY/no/COUNTS -> _
START DET SOLID [is/was] ADJ/ING/a/an/very -> _
START DET SOLIDS [are/were] ADJ/ING/very -> _
MODAL [be] a/an/the/very/more/PUREDONE/PUREING/able/important/difficult/happy -> _
has/have [been] PUREING -> _
PRON/NAME/SOLID [has] SPECIAL -> _
THEY/SOLIDS [have] SPECIAL -> _
think/thinking/thinks [about] DET/OBJ/it -> _
START WH [do/does/did] PRON/you/it -> _
go/goes/going/went/come/comes/came [to] DET -> _
PAST/THIRD/BASE [at/in] the ROOM -> _
is/are/was/were [at/in] the ROOM -> _
"""

_EXTRA_WORD = """
[the/a/an/to/of/for/with/and/is/are/was/were/can/will/has/be/from] WORD -> {0} {0}
!DET MODAL [PURE] -> to {0}
[ER] than -> more {0}
the [EST] -> most {0}
[discuss/discussed/discusses] DET/it -> {0} about
[despite] DET -> {0} of
[last/next UNIT] END -> in {0} {1}
[yesterday/tomorrow] END -> in {0}
go/goes/went/come/came [home] -> to {0}
MAKE OBJ [BASE] -> to {0}
~ALTHOUGH WORD WORD [,] PRON/you/it -> , but
most [people/SOLIDS] -> of {0}
[because] PRON/you/it -> because of
[enter/entered/reach/reached/marry/married] the/my/his/her -> {0} to
please/let's [BASE] -> to {0}
[many/several] SOLIDS -> {0} of
"""

_CONFUSED_WORD = """
[their] ADJ/COUNT/COUNTS/own -> there | they're
[there] BE/END -> their
[your] ADJ/COUNT/COUNTS/own -> you're
[then] -> than
ER/more/less/rather/other [than] -> then
[to] DET/BASE -> too
[too] ADJ/much/many -> to
[two] COUNTS -> too | to
PRON/you [were] -> where
place/places/city/country [where] -> were
THEY/don't/not/to [know] -> no
[it's] ADJ/a/an/the/not/ING -> its
[its] ADJ/COUNT/COUNTS/own -> it's
to/can/will/should/i/you/we/they [write] -> right
to/can/will/should/i/you/we/they [buy] -> by
[by] DET/ING -> buy
[advice] -> advise
to/can/will/could/i/you/we/they/not/n't/don't [hear] -> here
[here] END -> hear
to/can/will/could/not/may/might/they/we/you/would [lose] -> loose
the/an/no/negative/positive/bad/good/big [effect/effects] on/of -> affect
[quite] ADJ/a -> quiet
to/can/will/should/not/must/n't/don't [accept] -> except
[except] for/the -> accept
[whose] COUNT/COUNTS -> who's
[weather] END/is/was -> whether
know/wonder/decide/matter/about/see/or [whether] -> weather
[many] COUNTS -> much
[much] MASS/better -> many
[make] a/the/their/this decision/mistake/decisions -> do
[made] a/the/their/this decision/mistake/decisions -> did
[told] OBJ -> said
[tell] OBJ -> say
[said/says] that -> told
with/to/for/from/about/of [him] END -> he
with/to/for/from/about/of [them] END -> they
START [he] THIRD/PAST/is/was/has -> him
START [she] THIRD/PAST/is/was/has -> her
START [they] BASE/PAST/are/were -> them
START [we] BASE/PAST/are/were -> us
[passed] away/by -> past
[through] DET -> threw
"""

_PUNCTUATION = """
[.] EDGE -> _
[?] EDGE -> _ | .
START [UPPER] WORD -> {0.low}
[i] WORD -> i
[DAYS/DAYSS/MONTHS/LANGUAGE/COUNTRY] -> {0.low}
START however/therefore/moreover/furthermore/finally/firstly/secondly/nowadays [,] -> _
START for example/instance [,] -> _
START in fact/conclusion/addition/general/short [,] -> _
~CONDITION WORD [,] PRON/you/it -> _
[NEGATED] -> {0.bare}
[i'm] -> Im
"""

RULES: Mapping[ErrorKind, str] = {
    "agreement": _AGREEMENT,
    "article": _ARTICLE,
    "preposition": _PREPOSITION,
    "tense": _TENSE,
    "verb_form": _VERB_FORM,
    "plural": _PLURAL,
    "word_order": _WORD_ORDER,
    "missing_word": _MISSING_WORD,
    "extra_word": _EXTRA_WORD,
    "confused_word": _CONFUSED_WORD,
    "punctuation": _PUNCTUATION,
}
"""The patterns of every kind but spelling, which needs no context."""
