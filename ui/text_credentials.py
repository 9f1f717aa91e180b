"""Content credentials, in English, Korean and Polish; see ``ui/text.py``."""

from __future__ import annotations

from typing import Final

EN: Final = {
    "credentials": "Content credentials (C2PA)",
    "credentials.none": "none, which says nothing of where the picture comes from",
    "credentials.valid": "signed, and neither the picture nor what is said of it was changed since",
    "credentials.invalid": "the picture or what is said of it was changed since, or it was badly signed",
    "credentials.unreadable": "there are some, but damaged",
    "credentials.elsewhere": "the file only names an address; nothing was fetched from there",
    "credentials.issuer": "issued by {name}",
    "credentials.generator": "written by {name}",
    "credentials.ai": "its history says that AI made it, wholly or in part",
    "credentials.no_ai": "its history does not say that AI made it",
    "credentials.note": "Anybody can make a certificate: a valid signature does not show who signed.",
}

KO: Final = {
    "credentials": "콘텐츠 자격 증명(C2PA)",
    "credentials.none": "없음. 출처에 대해서는 아무것도 알 수 없습니다",
    "credentials.valid": "서명되었고, 이후 이미지와 그 설명이 변경되지 않았습니다",
    "credentials.invalid": "이후 이미지나 그 설명이 변경되었거나 서명이 잘못되었습니다",
    "credentials.unreadable": "있지만 손상되었습니다",
    "credentials.elsewhere": "파일에는 주소만 있으며, 그곳에서 아무것도 가져오지 않았습니다",
    "credentials.issuer": "발급자 {name}",
    "credentials.generator": "작성 프로그램 {name}",
    "credentials.ai": "이력에 따르면 전체 또는 일부가 AI로 만들어졌습니다",
    "credentials.no_ai": "이력에 AI로 만들어졌다는 내용이 없습니다",
    "credentials.note": "인증서는 누구나 만들 수 있으므로, 유효한 서명이 서명자를 증명하지는 않습니다.",
}

PL: Final = {
    "credentials": "Poświadczenie treści (C2PA)",
    "credentials.none": "brak, co nic nie mówi o pochodzeniu obrazu",
    "credentials.valid": "podpisane; od tego czasu nie zmieniono ani obrazu, ani tego, co o nim powiedziano",
    "credentials.invalid": "od tego czasu zmieniono obraz lub to, co o nim powiedziano, albo podpis jest wadliwy",
    "credentials.unreadable": "jest, ale uszkodzone",
    "credentials.elsewhere": "plik podaje tylko adres; niczego stamtąd nie pobrano",
    "credentials.issuer": "wystawca: {name}",
    "credentials.generator": "zapisał: {name}",
    "credentials.ai": "historia mówi, że obraz w całości lub w części wytworzyła AI",
    "credentials.no_ai": "historia nie mówi, że obraz wytworzyła AI",
    "credentials.note": "Certyfikat może wystawić każdy: ważny podpis nie dowodzi, kto podpisał.",
}
