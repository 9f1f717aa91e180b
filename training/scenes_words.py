"""What people write in the generated chats, in three languages, and the words around it.

Deal lines use slang that police and press have published. Near lines use the same words (snow, ice, grass, pills) for
what they plainly mean, so that no single word decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Language:
    """Words of one language.

    Attributes:
        name: English name.
        deal: lines that only a drug deal explains.
        near: harmless lines with words from ``deal``.
        plain: harmless lines.
        people: names of contacts.
        box: hint in the empty message box.
        online: line below a contact's name.
        keys: rows of the keyboard.
        slots: what may stand in ``{slot}`` of a line.
    """

    name: str
    deal: tuple[str, ...]
    near: tuple[str, ...]
    plain: tuple[str, ...]
    people: tuple[str, ...]
    box: str
    online: str
    keys: tuple[str, str, str]
    slots: dict[str, tuple[str, ...]]


def fill_line(line: str, language: Language, random: Random) -> str:
    """A line with every slot filled; ``{n}`` is a small number."""
    chosen = {slot: random.choice(values) for slot, values in language.slots.items()}
    return line.format(n=random.randint(2, 9), **chosen)


_ENGLISH = Language(
    "English",
    deal=(
        "got {n}g of {drug}, {price} a g",
        "{drug} back in stock, {price}",
        "need {n}g {drug} tonight",
        "pure {drug}, no mix",
        "price for {n} {pill}?",
        "{n} {pill} for {price}",
        "u still selling {drug}?",
        "dropped the {drug}, pic soon",
        "pay crypto then i send the drop",
        "the {drug} hits hard bro",
        "sold out of {drug}, only {pill}",
        "half an oz of {drug} {price}",
        "last {drug} was cut, refund",
        "my plug has {drug} again",
        "eighth of {drug}, meet {place}",
    ),
    near=(
        "so much snow on the {place} today",
        "ice cream at the {place}?",
        "cut the grass in the garden pls",
        "took {n} pills for my headache",
        "coke or sprite with the pizza?",
        "weeds everywhere in the garden",
        "{n} crystal glasses, {price}",
        "the plug in my room is broken",
        "drop the keys at the {place}",
        "pick up my medicine {price}",
    ),
    plain=(
        "see you at {n} at the {place}",
        "happy birthday!!",
        "can you buy milk and {n} eggs?",
        "homework for monday?",
        "the bus is {n} min late",
        "dinner at mum's on sunday",
        "{n} tickets for the show {price}",
        "haha that cat video",
        "thanks, talk later",
        "meeting moved to {n} pm",
        "who won the match?",
        "rent is due, {price}",
        "call me when you're home",
        "{n} kg of apples {price}",
        "good morning :)",
        "did you walk the dog?",
        "new shoes arrived, {price}",
        "sending the photos tonight",
    ),
    people=("Alex", "Mum", "Jamie", "Sam W.", "Coach", "Lena", "T.", "Neighbour", "Nico", "Kay", "Boss", "Mia"),
    box="Message",
    online="online",
    keys=("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    slots={
        "drug": ("weed", "coke", "meth", "mdma", "ket", "molly", "crystal", "heroin", "speed", "hash"),
        "pill": ("xans", "ecstasy", "lsd tabs", "oxys", "blue pills"),
        "price": ("$20", "$45", "$60", "£30", "£80", "$120"),
        "place": ("station", "park", "corner", "school", "bridge", "market"),
    },
)

_POLISH = Language(
    "Polish",
    deal=(
        "mam {n}g {drug}, {price} za g",
        "{drug} znów jest, {price}",
        "potrzebuję {n}g {drug} na dziś",
        "{drug} czyste, bez mieszanki",
        "ile za {n} {pill}?",
        "{n} {pill} za {price}",
        "masz jeszcze {drug}?",
        "zakopane {drug}, zaraz zdjęcie",
        "płać krypto, dam miejscówkę",
        "mocne {drug}, uważaj",
        "nie ma {drug}, są tylko {pill}",
        "pół paczki {drug} {price}",
        "{drug} ostatnio było chrzczone",
        "diler znowu ma {drug}",
        "piątka {drug}, spotkanie {place}",
    ),
    near=(
        "ile śniegu dziś {place}!",
        "lody {place}?",
        "skoś trawę w ogródku proszę",
        "wzięłam tabletki na głowę o {n}",
        "cola czy sok do pizzy?",
        "zioła do zupy i cebula",
        "kryształowe kieliszki {n} szt.",
        "mąka i cukier puder, {price}",
        "zostaw klucze {place}",
        "odbierz moje leki, {price}",
    ),
    plain=(
        "widzimy się o {n} {place}",
        "wszystkiego najlepszego!!",
        "kup mleko i jajka, {n} szt.",
        "co było zadane na jutro?",
        "autobus spóźniony {n} min",
        "obiad u mamy w niedzielę",
        "bilety na koncert {n} szt. {price}",
        "haha ten kot",
        "dzięki, odezwę się później",
        "spotkanie przełożone na {n}",
        "kto wygrał mecz?",
        "czynsz do zapłaty, {price}",
        "zadzwoń, jak będziesz w domu",
        "{n} kg jabłek {price}",
        "dzień dobry :)",
        "byłaś z psem?",
        "przyszły nowe buty, {price}",
        "wieczorem wyślę zdjęcia",
    ),
    people=("Ola", "Mama", "Kuba", "Paweł", "Trener", "Zośka", "M.", "Sąsiad", "Łukasz", "Żaneta", "Szef", "Gosia"),
    box="Napisz wiadomość",
    online="dostępny",
    keys=("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    slots={
        "drug": ("feta", "koka", "meta", "marycha", "kryształ", "mefedron", "hera", "trawka MJ", "hasz", "amfa"),
        "pill": ("piguły", "dropsy", "kwasy LSD", "ekstazy", "xanaxy"),
        "price": ("50 zł", "80 zł", "120 zł", "200 zł", "35 zł", "300 zł"),
        "place": ("na dworcu", "w parku", "pod szkołą", "na rogu", "przy moście", "na rynku"),
    },
)

_KOREAN = Language(
    "Korean",
    deal=(
        "{drug} {n}g 있어요 {price}",
        "{drug} 재입고 {price}",
        "오늘 {drug} {n}g 가능?",
        "{drug} 순도 최상급",
        "{pill} {n}개 얼마예요?",
        "{pill} {n}개 {price}",
        "{drug} 아직 팔아요?",
        "{drug} 드랍 완료 좌표 보냄",
        "코인 입금하면 좌표 드려요",
        "이번 {drug} 진짜 세다",
        "{drug} 품절 {pill}만 있음",
        "{drug} 반 작대기 {price}",
        "지난 {drug} 섞인 거던데",
        "상선이 {drug} 또 구했대",
        "{drug} 한 작대기 {place} 던지기",
    ),
    near=(
        "오늘 {place}에 눈 많이 왔어",
        "아이스크림 먹으러 {place} 갈래?",
        "아이스 아메리카노 {n}잔",
        "감기약 {n}알 먹었어",
        "콜라랑 사이다 중에 뭐?",
        "할머니 댁 잔디 깎자",
        "크리스탈 컵 {n}개 {price}",
        "밀가루랑 설탕 사 와 {price}",
        "{place}에 열쇠 두고 갈게",
        "약국에서 약 찾아 줘 {price}",
    ),
    plain=(
        "{n}시에 {place}에서 봐",
        "생일 축하해!!",
        "우유랑 계란 {n}개 사 와",
        "내일 숙제 뭐였지?",
        "버스 {n}분 늦는대",
        "일요일에 엄마랑 저녁 먹자",
        "공연 표 {n}장 {price}",
        "ㅋㅋㅋ 고양이 영상 봐",
        "고마워 나중에 얘기해",
        "회의 {n}시로 바뀌었어요",
        "어제 축구 누가 이겼어?",
        "월세 보냈어요 {price}",
        "집에 오면 전화해",
        "사과 {n}kg {price}",
        "좋은 아침이에요",
        "강아지 산책시켰어?",
        "새 신발 도착 {price}",
        "저녁에 사진 보내 줄게",
    ),
    people=("민지", "엄마", "준호", "김 대리", "코치님", "수연", "상담", "옆집", "지훈", "하은", "사장님", "서준"),
    box="메시지 입력",
    online="접속 중",
    keys=("ㅂㅈㄷㄱㅅㅛㅕㅑㅐㅔ", "ㅁㄴㅇㄹㅎㅗㅓㅏㅣ", "ㅋㅌㅊㅍㅠㅜㅡ"),
    slots={
        "drug": (
            "필로폰",
            "대마",
            "케타민",
            "코카인",
            "엑스터시",
            "아이스 정품",
            "떨 상급",
            "허브 액상",
            "캔디 MD",
            "헤로인",
        ),
        "pill": ("엑스", "LSD 종이", "졸피뎀", "몰리", "도리도리"),
        "price": ("5만", "15만", "30만", "45만", "2만원", "70만"),
        "place": ("역", "공원", "학교", "골목", "다리", "시장"),
    },
)

LANGUAGES: dict[str, Language] = {"en": _ENGLISH, "ko": _KOREAN, "pl": _POLISH}

# On packets in kitchens: what is printed on the front.
GOODS: dict[str, tuple[str, ...]] = {
    "flour": ("FLOUR", "MĄKA", "밀가루"),
    "sugar": ("SUGAR", "CUKIER", "설탕"),
    "tea": ("GREEN TEA", "HERBATA", "녹차"),
    "medicine": ("IBUPROFEN 200", "TABLETKI 500 mg", "감기약"),
}
