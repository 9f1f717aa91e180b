"""How far to believe an answer, and what signed maps show, in English, Korean and Polish; see ``ui/text.py``."""

from __future__ import annotations

from typing import Final

EN: Final = {
    "doubt.none": "No confident verdict",
    "doubt.lean": "The models lean to “{label}”, {share}, but most of their weight has not seen such pictures.",
    "doubt.some": "Has not seen such pictures: {names}.",
    "doubt.expected": "Of {count} held-out pictures on which these models were as sure, they were right on {accuracy}.",
    "doubt.unexpected": "How often they are right when as sure as this was not measured.",
    "doubt.unseen": "This model has not seen such pictures",
    "doubt.model": "right on {accuracy} of {count} held-out pictures when as sure",
    "doubt.model_unknown": "how often it is right when as sure was not measured",
    "doubt.raw": "not calibrated: the network's own probability",
    "doubt.calibrated": "calibrated, raw {share}",
    "stability.kept": "keeps its answer when compressed, shrunk, blurred or cropped (moves by up to {points} pp)",
    "stability.flips": "Changes its answer when {changes}",
    "stability.jpeg": "compressed (JPEG 70)",
    "stability.halved": "shrunk to half",
    "stability.blur": "slightly blurred",
    "stability.crop": "cropped by 5 %",
    "stability.map": "Under such changes of the picture this map stays alike: lowest correlation {value}.",
    "stability.map_moves": "Under small changes of the picture this map moves: lowest correlation {value}.",
    "signed.for": "for",
    "signed.against": "against",
    "signed.legend": "red speaks for “{target}”, blue against it",
    "signed.delta": "convergence delta {delta}",
    "check": "Check against random weights",
    "check.running": "Replacing the weights of {name} by random ones, layer by layer.",
    "check.survived": "This map hardly changes when the model's weights are random (rank correlation {rank}, "
    "similarity {ssim}): it shows the picture, not what the model learned.",
    "check.passed": "This map changes with the model's weights (with random ones rank correlation {rank}, similarity "
    "{ssim}), as it should.",
    "check.gone": "There is no map of a model here to check: choose one above.",
    "grid.sorted": "The most faithful map of each model comes first.",
}

KO: Final = {
    "doubt.none": "확신할 수 있는 판정 없음",
    "doubt.lean": "모델들은 “{label}” {share} 쪽으로 기울지만, 비중의 대부분이 이런 그림을 본 적이 없습니다.",
    "doubt.some": "이런 그림을 본 적이 없는 모델: {names}.",
    "doubt.expected": "이 모델들이 이만큼 확신한 검증용 그림 {count}장 가운데 {accuracy}에서 맞았습니다.",
    "doubt.unexpected": "이만큼 확신할 때 얼마나 맞는지는 측정하지 않았습니다.",
    "doubt.unseen": "이 모델은 이런 그림을 본 적이 없습니다",
    "doubt.model": "이만큼 확신한 검증용 그림 {count}장 중 {accuracy}에서 맞음",
    "doubt.model_unknown": "이만큼 확신할 때 얼마나 맞는지 측정하지 않음",
    "doubt.raw": "보정되지 않음: 신경망이 낸 확률 그대로",
    "doubt.calibrated": "보정됨, 원래 {share}",
    "stability.kept": "압축, 축소, 흐림, 자르기에도 답이 그대로임 (최대 {points}pp 움직임)",
    "stability.flips": "다음 변화에서 답이 바뀜: {changes}",
    "stability.jpeg": "압축(JPEG 70)",
    "stability.halved": "절반으로 축소",
    "stability.blur": "약간 흐림",
    "stability.crop": "5% 자르기",
    "stability.map": "그림을 조금 바꿔도 이 맵은 비슷합니다. 가장 낮은 상관 {value}.",
    "stability.map_moves": "그림을 조금 바꾸면 이 맵이 달라집니다. 가장 낮은 상관 {value}.",
    "signed.for": "찬성",
    "signed.against": "반대",
    "signed.legend": "빨강은 “{target}”에 찬성, 파랑은 반대",
    "signed.delta": "수렴 오차 {delta}",
    "check": "무작위 가중치와 비교하기",
    "check.running": "{name}의 가중치를 층마다 무작위 값으로 바꾸고 있습니다.",
    "check.survived": "모델의 가중치가 무작위여도 이 맵은 거의 바뀌지 않습니다(순위 상관 {rank}, 유사도 {ssim}). "
    "모델이 배운 것이 아니라 그림을 보여 줍니다.",
    "check.passed": "이 맵은 모델의 가중치에 따라 바뀝니다(무작위 가중치에서 순위 상관 {rank}, 유사도 {ssim}). "
    "그래야 합니다.",
    "check.gone": "여기에는 검사할 모델의 맵이 없습니다. 위에서 하나를 고르십시오.",
    "grid.sorted": "모델마다 가장 충실한 맵이 먼저 나옵니다.",
}

PL: Final = {
    "doubt.none": "Brak pewnego werdyktu",
    "doubt.lean": "Modele skłaniają się ku „{label}”, {share}, ale większość ich wagi nie widziała takich obrazów.",
    "doubt.some": "Nie widział takich obrazów: {names}.",
    "doubt.expected": "Na {count} obrazach kontrolnych, przy których te modele były równie pewne, miały rację w "
    "{accuracy}.",
    "doubt.unexpected": "Nie zmierzono, jak często mają rację przy takiej pewności.",
    "doubt.unseen": "Ten model nie widział takich obrazów",
    "doubt.model": "rację miał w {accuracy} z {count} obrazów kontrolnych przy takiej pewności",
    "doubt.model_unknown": "nie zmierzono, jak często ma rację przy takiej pewności",
    "doubt.raw": "bez kalibracji: prawdopodobieństwo wprost z sieci",
    "doubt.calibrated": "po kalibracji, surowe {share}",
    "stability.kept": "zdania nie zmienia po kompresji, zmniejszeniu, rozmyciu ani przycięciu (różnica do {points} pp)",
    "stability.flips": "Zmienia odpowiedź, gdy obraz jest: {changes}",
    "stability.jpeg": "skompresowany (JPEG 70)",
    "stability.halved": "zmniejszony o połowę",
    "stability.blur": "lekko rozmyty",
    "stability.crop": "przycięty o 5 %",
    "stability.map": "Przy takich zmianach obrazu mapa pozostaje podobna: najniższa korelacja {value}.",
    "stability.map_moves": "Przy małych zmianach obrazu mapa się zmienia: najniższa korelacja {value}.",
    "signed.for": "za",
    "signed.against": "przeciw",
    "signed.legend": "czerwony przemawia za „{target}”, niebieski przeciw",
    "signed.delta": "błąd zbieżności {delta}",
    "check": "Sprawdź z losowymi wagami",
    "check.running": "Wagi modelu {name} są zastępowane losowymi, warstwa po warstwie.",
    "check.survived": "Mapa prawie się nie zmienia, gdy wagi modelu są losowe (korelacja rang {rank}, podobieństwo "
    "{ssim}): pokazuje obraz, a nie to, czego model się nauczył.",
    "check.passed": "Mapa zmienia się wraz z wagami modelu (przy losowych korelacja rang {rank}, podobieństwo {ssim}), "
    "tak jak powinna.",
    "check.gone": "Nie ma tu mapy modelu do sprawdzenia: wybierz ją wyżej.",
    "grid.sorted": "Najwierniejsza mapa każdego modelu jest pierwsza.",
}
