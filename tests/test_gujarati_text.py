"""Sentences as a Gujarati reader says them, and what must hold for any text at all.

The public tables of number words and the prompts of OpenSLR 78 do not ship with the repository; where they are not, the
tests that read them skip and say so."""

import os
import random
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vaani_lib.base import compact_base
from vaani_lib.language import cardinal, load_language
from vaani_lib.prepared import PreparedSet, Row
from vaani_lib.recipes import make_clips
from vaani_lib.text import COMPACT_CHARACTERS, explain, normalize
from vaani_lib.voice import Voice

SHARED = Path(os.environ.get("VAANI_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))

# rule: (as written, as said); the rule must be among those that changed the sentence
READINGS = {
    "composed": [("क\u093cलम e\u0301", "ક઼લમ ઈ")],
    "invisible": [("શક્\u200dતિ", "શક્તિ"), ("વંદે માતરમ્\u200c", "વંદે માતરમ્")],
    "plain quotes": [("‘સરસ્વતીચંદ્ર’માં", "'સરસ્વતીચંદ્ર'માં"), ("હા ❤\ufe0f", "હા")],
    "vowel signs": [("અાજે પાેતે ગયાે", "આજે પોતે ગયો")],
    "doubled signs": [("છેે", "છે")],
    "other scripts": [("भारत દેશ", "ભારત દેશ")],
    "folded signs": [("માઁ અંબા।", "માં અંબા.")],
    "misread signs": [("ફળોૢ ફૂલો", "ફળો, ફૂલો")],
    "visarga": [("દુ:ખી ન થા, સંભવત: આવશે", "દુઃખી ન થા, સંભવતઃ આવશે")],
    "tags": [
        ("બી_letter-gu એસ_letter ઈ_શબ્દ ખાતે", "બી એસ ઈ ખાતે"),
        ("[noise] હા {breath} #um આવો [હાસ્ય]", "હા આવો"),
        ("સ્થાપના થઈ.[૧૨] તેણે [હસીને] કહ્યું", "સ્થાપના થઈ. તેણે (હસીને) કહ્યું"),
        ("કાલે મળીએ :-) :D <3", "કાલે મળીએ"),
        ("રમેશ &amp; સન્સ&nbsp;હા", "રમેશ અને સન્સ હા"),
    ],
    "powers": [
        ("૧૦⁶ જીવાણુ, 2^10", "દસની છ ઘાત જીવાણુ, બેની દસ ઘાત"),
        ("10⁻³ અને x⁴", "દસની માઇનસ ત્રણ ઘાત અને એક્સની ચાર ઘાત"),
        ("3 × 10⁸ m/s", "ત્રણ ગુણ્યા દસની આઠ ઘાત મીટર પ્રતિ સેકન્ડ"),
        ("ગાંધીજી¹ બોલ્યા", "ગાંધીજી બોલ્યા"),
    ],
    "plain characters": [("½ કપ", "અડધો કપ"), ("５ ㎏", "પાંચ કિલોગ્રામ"), ("1⁄2 કપ", "અડધો કપ")],
    "digits": [
        ("૩૩ જિલ્લા", "તેત્રીસ જિલ્લા"),
        (".5 ટકા, +.75, -.5", "શૂન્ય પોઇન્ટ પાંચ ટકા, પ્લસ શૂન્ય પોઇન્ટ સાત પાંચ, માઇનસ શૂન્ય પોઇન્ટ પાંચ"),
    ],
    "abbreviations in place": [
        ("ધો. ૧૦ની પરીક્ષા, ધો-XII", "ધોરણ દસની પરીક્ષા, ધોરણ બાર"),
        ("લિ. તમારો મિત્ર", "લિખિતંગ તમારો મિત્ર"),
        ("ભારત વિ. પાકિસ્તાન મેચ", "ભારત વિરુદ્ધ પાકિસ્તાન મેચ"),
        ("ચા, કૉફી, દૂધ વિ.", "ચા, કૉફી, દૂધ વગેરે."),
        ("મો. ૯૮૨૫૦ ૧૨૩૪૫", "મોબાઇલ નવ આઠ બે પાંચ શૂન્ય, એક બે ત્રણ ચાર પાંચ"),
        ("વિ.સ. ૨૦૮૦", "વિક્રમ સંવત બે હજાર એંસી"),
        ("1990sમાં, O+ve, ટી20", "ઓગણીસસો નેવુંના દાયકામાં, ઓ પોઝિટિવ, ટી ટ્વેન્ટી"),
        ("ભારત 356/7 (50 ઓવર)", "ભારત સાત વિકેટે ત્રણસો છપ્પન (પચાસ ઓવર)"),
        ("24×7 સેવા, 5 × 6 ફૂટ", "ટ્વેન્ટી ફોર બાય સેવન સેવા, પાંચ બાય છ ફૂટ"),
        ("સં. 2081, કારતક સુદ-૧, આસો વદ ૩૦", "સંવત બે હજાર એક્યાસી, કારતક સુદ એકમ, આસો વદ અમાસ"),
        ("સે. 21માં, પ્ર. ૨, પા. ૧૫, નં-૫", "સેક્ટર એકવીસમાં, પ્રશ્ન બે, પાના નંબર પંદર, નંબર પાંચ"),
        ("લઘુતમ 12 ડિગ્રી સે. રહ્યું", "લઘુતમ બાર ડિગ્રી સેલ્સિયસ રહ્યું"),
        ("ટે.નં. ૨૬૫૭૮૯૦૦", "ટેલિફોન બે છ પાંચ સાત આઠ નવ શૂન્ય શૂન્ય"),
        ("A/C કોચ, A/C XX12", "એ સી કોચ, એકાઉન્ટ એક્સ એક્સ ટ્વેલ્વ"),
        ("Std. 5, Ref No 12, 1.2M views", "ધોરણ પાંચ, રેફરન્સ નંબર બાર, એક પોઇન્ટ બે મિલિયન વ્યૂઝ"),
        ("5 નવે. 2025, મા. મુખ્યમંત્રી", "પાંચ નવેમ્બર બે હજાર પચ્ચીસ, માનનીય મુખ્યમંત્રી"),
    ],
    "addresses": [
        ("info@gujarat.gov.in પર લખો", "ઇન્ફો એટ ગુજરાત ડોટ ગવ ડોટ ઇન પર લખો"),
        ("https://www.google.com/maps જુઓ.", "ડબલ્યુ ડબલ્યુ ડબલ્યુ ડોટ ગૂગલ ડોટ કોમ સ્લેશ મેપ્સ જુઓ."),
    ],
    "phone numbers": [
        ("ફોન: 98250 12345", "ફોન: નવ આઠ બે પાંચ શૂન્ય, એક બે ત્રણ ચાર પાંચ"),
        ("પિન કોડ ૩૮૦૦૧૫", "પિન કોડ ત્રણ આઠ શૂન્ય શૂન્ય એક પાંચ"),
        ("PIN 380001, pin code 380015", "પિન ત્રણ આઠ શૂન્ય શૂન્ય શૂન્ય એક, પિન કોડ ત્રણ આઠ શૂન્ય શૂન્ય એક પાંચ"),
        ("PIN 380 001", "પિન ત્રણ આઠ શૂન્ય, શૂન્ય શૂન્ય એક"),
        ("(079) 2658-1234", "શૂન્ય સાત નવ, બે છ પાંચ આઠ, એક બે ત્રણ ચાર"),
        ("079 2658 1234", "શૂન્ય સાત નવ, બે છ પાંચ આઠ, એક બે ત્રણ ચાર"),
        ("ટ્રેન 19015 મોડી છે", "ટ્રેન એક નવ શૂન્ય એક પાંચ મોડી છે"),
        ("ગાડી સંખ્યા 22961 45 મિનિટ મોડી", "ગાડી સંખ્યા બે બે નવ છ એક પિસ્તાલીસ મિનિટ મોડી"),
        ("હેલ્પલાઇન નંબર 108, PNR 2345", "હેલ્પલાઇન નંબર એકસો આઠ, પી એન આર બે ત્રણ ચાર પાંચ"),
        ("919825012345", "નવ એક નવ આઠ બે પાંચ શૂન્ય એક બે ત્રણ ચાર પાંચ"),
    ],
    "dates": [
        ("15/08/1947ના રોજ", "પંદર ઓગસ્ટ ઓગણીસસો સુડતાલીસના રોજ"),
        ("૧૫-૮-૧૯૪૭", "પંદર ઓગસ્ટ ઓગણીસસો સુડતાલીસ"),
        ("15-Aug-1947, 15 Aug 1947", "પંદર ઓગસ્ટ ઓગણીસસો સુડતાલીસ, પંદર ઓગસ્ટ ઓગણીસસો સુડતાલીસ"),
        ("Aug 15, 1947ના રોજ", "પંદર ઓગસ્ટ ઓગણીસસો સુડતાલીસના રોજ"),
        ("તા. ૧૫.૮.૪૭ના રોજ", "તારીખ પંદર ઓગસ્ટ સુડતાલીસના રોજ"),
        ("5/6 ડિસેમ્બરે, 14/11ના રોજ", "પાંચ-છ ડિસેમ્બરે, ચૌદ નવેમ્બરના રોજ"),
        ("2023/24નું બજેટ", "બે હજાર ત્રેવીસ-ચોવીસનું બજેટ"),
        ("તા. ૧/૪/૨૦૨૩થી અમલ", "તારીખ એક એપ્રિલ બે હજાર ત્રેવીસથી અમલ"),
    ],
    "times": [
        ("સવારે 10:30 વાગ્યે", "સવારે સાડા દસ વાગ્યે"),
        ("બપોરે ૧:૩૦ વાગ્યાથી", "બપોરે દોઢ વાગ્યાથી"),
        ("રાત્રે 11:45 વાગ્યાની ટ્રેન", "રાત્રે પોણા બાર વાગ્યાની ટ્રેન"),
        ("5 PM", "સાંજે પાંચ વાગ્યે"),
        ("18:30 કલાકે", "અઢાર ત્રીસ કલાકે"),
        ("10AM-5PM", "સવારે દસ વાગ્યાથી સાંજે પાંચ વાગ્યે"),
        ("00:15", "રાત્રે સવા બાર વાગ્યે"),
        ("સવારે 9.30થી સાંજે 6.30 સુધી", "સવારે સાડા નવ વાગ્યાથી સાંજે સાડા છ વાગ્યા સુધી"),
        ("સાંજે 5-30 વાગ્યે, રાત્રે 8-10 વાગ્યે", "સાંજે સાડા પાંચ વાગ્યે, રાત્રે આઠથી દસ વાગ્યે"),
        ("6:15, 7:45 અને 8:30 વાગ્યે", "સવા છ, પોણા આઠ અને સાડા આઠ વાગ્યે"),
        ("સ્કેલ 1:50,000, 10:30", "સ્કેલ એક: પચાસ હજાર, સાડા દસ વાગ્યે"),
    ],
    "money": [
        ("₹1,50,000નો ખર્ચ", "એક લાખ પચાસ હજાર રૂપિયાનો ખર્ચ"),
        ("રૂ. ૫૦૦/-", "પાંચસો રૂપિયા"),
        ("₹3.32 લાખ કરોડની જોગવાઈ", "ત્રણ પોઇન્ટ ત્રણ બે લાખ કરોડ રૂપિયાની જોગવાઈ"),
        ("₹10000000000000", "દસ લાખ કરોડ રૂપિયા"),
        ("₹9825012345નો ખર્ચ", "નવ અબજ બ્યાસી કરોડ પચાસ લાખ બાર હજાર ત્રણસો પિસ્તાલીસ રૂપિયાનો ખર્ચ"),
        ("૫૦/- રૂ, ૫૦૦ રૂ.માં", "પચાસ રૂપિયા, પાંચસો રૂપિયામાં"),
        ("$1.5M, ₹5L", "એક પોઇન્ટ પાંચ મિલિયન ડોલર, પાંચ લાખ રૂપિયા"),
        ("₹500-₹1000, ₹.50", "પાંચસોથી એક હજાર રૂપિયા, પચાસ પૈસા"),
        ("કિંમત ₹1 છે, $5.25", "કિંમત એક રૂપિયો છે, પાંચ ડોલર પચ્ચીસ સેન્ટ"),
    ],
    "units": [
        ("૪૨.૩°C નોંધાયું", "બેતાલીસ પોઇન્ટ ત્રણ ડિગ્રી સેલ્સિયસ નોંધાયું"),
        ("5 kg, 10 કિ.મી.ના અંતરે", "પાંચ કિલોગ્રામ, દસ કિલોમીટરના અંતરે"),
        ("૯૯.૫% લોકો", "નવ્વાણું પોઇન્ટ પાંચ ટકા લોકો"),
        ("5 m/s²", "પાંચ મીટર પ્રતિ સેકન્ડ સ્ક્વેર"),
        (
            "10000000000000 કિમી, 98250123451%",
            "દસ લાખ કરોડ કિલોમીટર, અઠ્ઠાણું અબજ પચ્ચીસ કરોડ એક લાખ ત્રેવીસ હજાર ચારસો એકાવન ટકા",
        ),
        ("₹96.42/લિટર", "છન્નું રૂપિયા બેતાલીસ પૈસા પ્રતિ લિટર"),
        ("60 કિમી/કલાક, ₹૫૦/કિલો", "સાઠ કિલોમીટર પ્રતિ કલાક, પચાસ રૂપિયા પ્રતિ કિલો"),
        ('20%-30%, 32" ટીવી', "વીસ ટકાથી ત્રીસ ટકા, બત્રીસ ઇંચ ટીવી"),
        ("9.58 સે.માં, ૨૫૦ મિ.લી. દૂધ", "નવ પોઇન્ટ પાંચ આઠ સેકન્ડમાં, બસો પચાસ મિલીલિટર દૂધ"),
        ("2 tbsp તેલ, 5000mAh", "બે ટેબલ સ્પૂન તેલ, પાંચ હજાર એમ એ એચ"),
        ("12 સેમી, સેમી ફાઇનલ", "બાર સેન્ટિમીટર, સેમી ફાઇનલ"),
        ("₹94.44/લીટર, 99/- per, 2GB/day", "ચોરાણું રૂપિયા ચુંમાલીસ પૈસા પ્રતિ લીટર, નવ્વાણું રૂપિયા પર, બે ગીગાબાઇટ પ્રતિ દિવસ"),
    ],
    "abbreviations": [
        ("ડૉ. આંબેડકર અને શ્રી. શાહ", "ડૉક્ટર આંબેડકર અને શ્રી શાહ"),
        ("ઈ.સ. ૧૮૫૭નો વિપ્લવ", "ઈસવીસન અઢારસો સત્તાવનનો વિપ્લવ"),
        ("સાત કિ.મી. દૂર", "સાત કિલોમીટર દૂર"),
        ("મિ. શાહ, ચિ. રમેશ", "મિસ્ટર શાહ, ચિરંજીવી રમેશ"),
        ("તા.ક. પત્ર લખજો", "તાજા કલમ પત્ર લખજો"),
        ("ડૉ.એ.પી.જે. અબ્દુલ કલામ", "ડૉક્ટર એ પી જે અબ્દુલ કલામ"),
        ("8 GB RAM, A/c no. XX, 1લી જાન્યુ.", "આઠ ગીગાબાઇટ રેમ, એકાઉન્ટ નંબર એક્સ એક્સ, પહેલી જાન્યુઆરી."),
        ("પ્રા. શાળામાં, (ઉ.વ. ૪૫)", "પ્રાથમિક શાળામાં, (ઉંમર વર્ષ પિસ્તાલીસ)"),
    ],
    "initials": [("આર.ટી.ઓ ની પાસે", "આર ટી ઓ ની પાસે"), ("મો.ક. ગાંધી", "મો ક ગાંધી"), ("એ.એમ.સી.ના", "એ એમ સીના")],
    "roman numerals": [
        ("XXI સદીમાં", "એકવીસમી સદીમાં"),
        ("ધોરણ XII", "ધોરણ બાર"),
        ("ચાર્લ્સ III, ii) પ્રશ્ન", "ચાર્લ્સ ત્રણ, બે) પ્રશ્ન"),
    ],
    "fractions": [("૧ ૧/૨ કલાક", "દોઢ કલાક"), ("2½ ચમચી, ¾ કપ", "અઢી ચમચી, પોણો કપ"), ("2/3 ભાગ", "બે તૃતીયાંશ ભાગ")],
    "ordinals": [
        ("૧લી મે, 2જી ઓક્ટોબર", "પહેલી મે, બીજી ઓક્ટોબર"),
        ("3જો માળ, 4થું ઘર, 6ઠ્ઠા દિવસે", "ત્રીજો માળ, ચોથું ઘર, છઠ્ઠા દિવસે"),
        ("૨૧મી સદી, ૧૮ મી સદીમાં", "એકવીસમી સદી, અઢારમી સદીમાં"),
        ("5મા ધોરણમાં 7મો નંબર", "પાંચમા ધોરણમાં સાતમો નંબર"),
    ],
    "codes": [("GJ-01-AB-1234", "જી જે ઝીરો વન એ બી વન ટુ થ્રી ફોર"), ("COVID-19, 4ac", "કોવિડ નાઇન્ટીન, ફોર એ સી")],
    "symbols": [
        ("૨+૨=૪", "બે વત્તા બે બરાબર ચાર"),
        ("રમેશ & સન્સ", "રમેશ અને સન્સ"),
        ("10*5", "દસ ગુણ્યા પાંચ"),
        ("√16 > 3", "વર્ગમૂળ સોળ ગ્રેટર ધેન ત્રણ"),
    ],
    "ranges": [("૧૦-૧૫ લોકો", "દસથી પંદર લોકો"), ("૧૯૬૦-૭૦ વચ્ચે", "ઓગણીસસો સાઠથી સિત્તેર વચ્ચે")],
    "numbers": [
        ("૧,૨૩,૪૫,૬૭૮", "એક કરોડ ત્રેવીસ લાખ પિસ્તાલીસ હજાર છસો ઇઠ્યોતેર"),
        ("12,345,678", "એક કરોડ ત્રેવીસ લાખ પિસ્તાલીસ હજાર છસો ઇઠ્યોતેર"),
        ("૧૦૦ ટકા, 101, 250", "સો ટકા, એકસો એક, બસો પચાસ"),
        ("-5 અને 3.14", "માઇનસ પાંચ અને ત્રણ પોઇન્ટ એક ચાર"),
        ("1984નાં રમખાણ, 2010માં", "ઓગણીસસો ચોર્યાસીનાં રમખાણ, બે હજાર દસમાં"),
        ("2-3 દિવસ, ૧૬૫૦ લોકો", "બે-ત્રણ દિવસ, એક હજાર છસો પચાસ લોકો"),
        ("સાંજે 7 વાગ્યે, 15 ઓગસ્ટ", "સાંજે સાત વાગ્યે, પંદર ઓગસ્ટ"),
        ("1000000000", "એક અબજ"),
    ],
    "english": [
        ("BBC અને NASA", "બી બી સી અને નાસા"),
        ("Facebookમાં વિટામિન C", "ફેસબુકમાં વિટામિન સી"),
        ("Happy Diwali, pls confirm", "હેપી દિવાળી, પ્લીઝ કન્ફર્મ"),
    ],
    "unread characters": [("હા 😀 સાચું", "હા સાચું")],
    "punctuation": [("ગામ છે.અહીં , નામ:આણંદ ..", "ગામ છે. અહીં, નામ: આણંદ.")],
}


@pytest.mark.parametrize("rule", READINGS)
def test_every_rule_reads_as_a_gujarati_reader_does(rule):
    for written, said in READINGS[rule]:
        explained = explain(written)
        assert explained.text == said == normalize(written) == normalize(said)
        assert rule in {step.rule for step in explained.steps}, f"{rule} did nothing to {written!r}"
        assert set(said) <= set(COMPACT_CHARACTERS)


def test_every_rule_has_such_a_sentence():
    from vaani_lib import text

    rules = {rule.__name__.replace("_", " ") for rule in (*text.SPELLING, *text.READING)}
    assert rules - {"spaces"} == set(READINGS)


@pytest.mark.parametrize(
    "plain",
    [
        "કેમ છો? મજામાં.",
        "તે છે. એ ગયો. હા. ના.",
        "નામ: રમેશ, 'ગુજરાત સમાચાર'માં…",
        "ઉત્તર - દક્ષિણ રસ્તો, નાની-મોટી વાતો",
        "રૂ જેવું સફેદ, કે જે ભાગ લે છે",
        "કપડાં ધો. પછી આવ, લેખક વિ. સ. ખાંડેકર, શ્રી વિ. પટેલ",
    ],
)
def test_plain_gujarati_stays_as_it_is(plain):
    assert normalize(plain) == plain


def read_back(lang, words: str) -> int:
    """The number that `words` mean, by rules of its own."""
    table = lang["numbers"]
    own = {n: table["hundreds_own"].get(str(n)) or table["hundreds"].format(lang.words[n]) for n in range(1, 10)}
    hundreds = {word.replace(" ", "_"): 100 * n for n, word in own.items()} | {table["hundred"]: 100}
    scales, total, below = {name: 10**zeros for name, zeros in table["scales"]}, 0, 0
    for word in words.replace(" सौ", "_सौ").split():
        if word in scales:
            total, below = total + below * scales[word], 0
        else:
            below += hundreds[word] if word in hundreds else lang.words.index(word)
    return total + below


@pytest.mark.parametrize("language", ["gu", "hi"])
def test_the_words_of_a_number_mean_that_number(language):
    lang, rng = load_language(language), random.Random(0)
    numbers = [*range(2000), *(rng.randrange(10 ** rng.randrange(4, 12)) for _ in range(3000))]
    said = {n: cardinal(lang, n) for n in numbers}
    assert len(set(said.values())) == len(said)
    assert all(read_back(lang, words) == n for n, words in said.items())


def test_number_words_are_in_a_public_table():
    table = SHARED / "gu_numbers" / "numbers_0_99.tsv"
    if not table.is_file():
        pytest.skip(f"no public tables of Gujarati number words at {table}; VAANI_SHARED_DATA may name another place")
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    words = load_language("gu").words
    assert [n for n, *_ in rows] == [str(n) for n in range(100)]
    assert not {n: words[int(n)] for n, _, _, _, accepted, *_ in rows if words[int(n)] not in accepted.split()}
    other = {int(n) for n, majority, *_ in rows if words[int(n)] != majority}
    assert other == {23, 26, 37, 38, 60, 69, 85}, "the notebook says why for these"


def letters(text: str) -> str:
    return "".join(c for c in text if unicodedata.category(c)[0] in "LMN")


# what a rule may do to a prompt; what is not here, no rule does to them
EXPLAINED = {
    "spaces": lambda old, new: old.split() == new.split(),
    "invisible": lambda old, new: [c for c in old if unicodedata.category(c) != "Cf"] == list(new),
    "plain quotes": lambda old, new: letters(old) == letters(new),
    "punctuation": lambda old, new: letters(old) == letters(new),
    "vowel signs": lambda old, new: unicodedata.normalize("NFC", new) == new and len(old) > len(new),
    "folded signs": lambda old, new: old.replace("ઁ", "ં") == new,
    "misread signs": lambda old, new: old.replace("ૢ", ", ") == new,
    "visarga": lambda old, new: old.replace(":", "ઃ") == new,
    "tags": lambda old, new: "_" in old and "_" not in new,
    "digits": lambda old, new: [unicodedata.digit(c, c) for c in old] == [unicodedata.digit(c, c) for c in new],
    "abbreviations": lambda old, new: any(short in old for short in load_language("gu")["abbreviations"]),
    "initials": lambda old, new: letters(old) == letters(new),
    "ordinals": lambda old, new: "18 મી" in old and "અઢારમી" in new,
    "codes": lambda old, new: "ઓમેગા-3" in old and "ઓમેગા three" in new,  # which another speaker's prompt has as ઓમેગા-થ્રી
    "english": lambda old, new: "three" in old and "થ્રી" in new,
    "ranges": lambda old, new: "1970-80" in old and "1970થી 80" in new,
    "numbers": lambda old, new: any(c.isdigit() for c in old) and not any(c.isdigit() for c in new),
}
# how many of the 4,272 prompts each rule changes
CHANGED = {
    "spaces": 59,
    "punctuation": 27,
    "tags": 19,
    "plain quotes": 10,
    "digits": 10,
    "numbers": 9,
    "invisible": 8,
    "abbreviations": 7,
    "vowel signs": 6,
    "initials": 5,
    "folded signs": 3,
    "misread signs": 3,
    "visarga": 3,
    "ranges": 1,
    "ordinals": 1,
    "codes": 1,
    "english": 1,
}


def test_real_prompts_pass_with_every_change_explained(capsys):
    files = sorted((SHARED / "gu_openslr78").glob("line_index_*.tsv"))
    if len(files) != 2:
        pytest.skip(f"no prompts of OpenSLR 78 at {SHARED / 'gu_openslr78'}; VAANI_SHARED_DATA may name another place")
    prompts = [line.split("\t", 1)[1] for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(prompts) == 4272
    changed, examples = Counter(), {}
    for prompt in prompts:
        explained = explain(prompt)
        assert not explained.unread and set(explained.text) <= set(COMPACT_CHARACTERS)
        assert normalize(explained.text) == explained.text == normalize(prompt)
        changed.update({step.rule for step in explained.steps})
        for step in explained.steps:
            assert EXPLAINED[step.rule](step.before, step.after), (step.rule, step.before, step.after)
            examples.setdefault(step.rule, step.changes())
    with capsys.disabled():
        print("\nOpenSLR 78, 4,272 prompts: what each rule changed")
        for rule, n in changed.most_common():
            print(f"  {n:3} {rule:16} {'; '.join(f'{old} → {new}' for old, new in examples[rule][:2])}")
    assert changed == CHANGED


PIECES = (
    "ડૉ. કિ.મી. રૂ. ₹ $ km kg °C % થી મી લી ના માં એ વાગ્યે PM am સદી XX http:// www. @ .com તા. 15/08/1947 10:30 "
    "1,23,456 નંબર OTP લાખ કરોડ એ. બી. દુ:ખ _letter-gu <b> 1/2 ½ - .. 's e.g. ઈ.સ. કે રહ. 5'6\" /kg ² 4થી બી- जी । "
    "[noise] {a} #um ⁶ ⁻ ^ .5 ⁄ (079) PIN Aug -May- ધો. વિ. લિ. +ve 990s 000000 /- રૂ M /કલાક "
    "&amp; &#2709; :D <3 √ ★ > સુદ વદ II ii) RAM ટ્રેન નં 9.30 5-30 7:45, અને નવે. ડૉ.એ. A/c no. સે. ઓવર) /7 24x7 × ફૂટ"
)


def any_text(rng: random.Random) -> str:
    """Characters of all of Unicode, or what Gujarati texts are made of in any order."""
    if rng.random() < 0.3:
        return "".join(chr(rng.randrange(0x110000)) for _ in range(rng.randrange(15)))
    kinds = [
        lambda: rng.choice(PIECES.split()),
        lambda: "".join(rng.choice("0123456789૦૧૨૩૪૫૬૭૮૯०१") for _ in range(rng.randrange(1, 6))),
        lambda: rng.choice(" .,:;-–—/'\"()[]<>_@#%&+=°₹$*~|\t\n\u200d\u200c"),
        lambda: "".join(rng.choice("કખગતનમરસહઅઆઈઓાિીુેોં્ૢઁ઼ઃ") for _ in range(rng.randrange(1, 4))),
        lambda: "".join(rng.choice("abeinorstxzABEIVX") for _ in range(rng.randrange(1, 5))),
    ]
    return "".join(rng.choice(kinds)() + " " * (rng.random() < 0.3) for _ in range(rng.randrange(1, 12)))


@pytest.mark.parametrize("language", ["gu", "hi"])
def test_what_holds_for_any_text(language):
    rng, alphabet = random.Random(0), load_language(language).alphabet
    assert not any(c.isdigit() or c.isnumeric() for c in alphabet)
    for i in range(6000):
        text = any_text(rng)
        said = normalize(text, language)
        assert set(said) <= alphabet, (text, said)
        assert normalize(said, language) == said, (text, said)
        assert len(said) <= 20 * len(text), (text, said)
        if i % 20 == 0:
            explained = explain(text, language)
            assert explained.text == said and not set(explained.unread) & alphabet


@pytest.mark.parametrize(
    "piece", ["1", "1,", "1.", "1-", "1 1/2 ", "₹1 ", "એ.", "a-", "@", "www.", "😀", ".", "ં", "10:30-"]
)
def test_a_long_text_is_read_whole(piece):
    said = normalize(piece * 1500)
    assert normalize(said) == said and len(said) <= 20 * 1500 * len(piece)


def test_training_and_speech_are_given_the_same(tmp_path):
    base, text = compact_base(("a",), seed=0), "૧૫/૮/૧૯૪૭ના રોજ ₹500 BBC"
    np.save(tmp_path / "audio-00000.npy", np.zeros(64000, np.int16))
    row = Row(text, "a", 64000, "audio-00000.npy", 0, "train", "1.wav", "")
    clips, _, left_out = make_clips(PreparedSet(tmp_path, 16000, ["a"], "", (row,)), "train", base.tokenizer, {"a": 0})
    said = "પંદર ઓગસ્ટ ઓગણીસસો સુડતાલીસના રોજ પાંચસો રૂપિયા બી બી સી"
    assert not left_out and list(clips[0].input_ids) == base.tokenizer(said).input_ids
    voice = Voice(base.model.eval(), base.tokenizer, base.speakers)
    assert not voice.unread(text) and np.array_equal(voice.say(text, seed=0)[0], voice.say(said, seed=0)[0])
